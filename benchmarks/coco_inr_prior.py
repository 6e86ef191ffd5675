"""Does attention help, and does the prior? Six views of procedural objects, one architecture, several codebooks (claims
1 and 2).

Run from the repository's root:  python -m benchmarks.coco_inr_prior [--variants default none] [--steps 600] ...
`none` is volsdf-tiny, `none-same-rate` the same with coco-inr-tiny's learning rate, `none-matched` volsdf-tiny widened
until it has as many trained numbers as coco-inr-tiny, `none-same-time` until its step takes as long. The default
codebook is k-means of whitened patches; `tokenizer` is learned from the same pictures by an autoencoder, as the paper's
was from others.
Each run is kept in benchmarks/runs as it ends, and shared with coco_inr_claims: a stopped benchmark goes on where it
was, and `--rows-only` writes the rows of the runs that are there. Few steps say little: the rows carry the number of
steps in their text; their "seeds" are pairs of object and seed.
"""

import argparse
from typing import Any, Dict, List, Mapping

import torch

from benchmarks._coco_inr_exact import width_times
from benchmarks._coco_inr_fits import STORE, Fit, add_options, collect
from benchmarks._coco_inr_rows import NO_LARGER, NO_LOWER, Runs, chosen, compare, gain_rows
from benchmarks._harness import Row, cached, kept, write_rows

VIEWS, REPEATS = 6, 9
"""Training views, and how often a step is timed."""
NAMES = (
    "default",
    "none",
    "none-same-rate",
    "none-matched",
    "none-same-time",
    "random",
    "shuffle",
    "free",
    "tokenizer",
)


def size_of(runs: Runs) -> str:
    return f"{next(iter(runs.values()))['parameters']:,} trained numbers"


def rows_of(found: Mapping[Fit, Dict[str, Any]], setting: str) -> List[Row]:
    """All rows that the runs allow."""
    ours, rows = chosen(found, "default", VIEWS), []
    for name, text in (
        ("none", "no attention"),
        ("none-same-rate", "no attention at the same learning rate"),
        ("none-matched", "no attention but wider layers"),
        ("none-same-time", "no attention but as wide layers as its time pays for"),
    ):
        base = chosen(found, name, VIEWS)
        if ours and base:
            what = f"default codebook ({size_of(ours)}) against {text} ({size_of(base)})"
            rows += gain_rows("coco-inr/1", what, ours, base, setting)
    gates = {"psnr_masked": NO_LOWER, "chamfer": NO_LARGER}
    for name in ("random", "shuffle", "free"):
        base = chosen(found, name, VIEWS)
        rows += compare("coco-inr/2", f"default codebook against {name}", ours, base, setting, gates)
    tokenizer, base = chosen(found, "tokenizer", VIEWS), chosen(found, "random", VIEWS)
    rows += compare("coco-inr/2", "codebook of an autoencoder against random", tokenizer, base, setting, gates)
    return rows


def time_rows(times: Mapping[str, Any]) -> List[Row]:
    """What a step of the preset takes against the baseline's at several widths."""
    ours, rows = times["coco-inr-tiny"], []
    for name, seconds in times.items():
        if name.startswith("volsdf-tiny "):
            what = f"training step of 128 rays, coco-inr-tiny over volsdf-tiny of width {name.rpartition(' ')[2]}"
            rows.append(
                Row("coco-inr/1", what, round(ours / seconds, 2), 1.0, "times", None, times["repeats"], None, None)
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", nargs="+", default=list(NAMES), choices=NAMES)
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    def fits(names: Any) -> List[Fit]:
        return [
            Fit(name, target, VIEWS, seed, options.steps, options.size, options.rays)
            for seed in range(options.seeds)
            for target in options.objects
            for name in names
        ]

    if not options.rows_only:
        collect(fits(options.variants), rows_only=False)
        settings = {"repeats": REPEATS, "threads": options.threads}
        cached(STORE, "width_times", lambda: {**width_times(REPEATS), "repeats": REPEATS}, settings)
    found = collect(fits(NAMES), rows_only=True)
    rows = rows_of(found, f"{VIEWS} views, {options.steps} steps of {options.rays} rays, {options.size} pixels")
    rows += time_rows(kept(STORE)["width_times"]) if "width_times" in kept(STORE) else []
    rows.sort(key=lambda row: row.claim)
    print(write_rows("coco_inr_prior", rows) if rows else "no two runs that could be compared are kept")


if __name__ == "__main__":
    main()
