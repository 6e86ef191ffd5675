"""What the parts of CoCo-INR are worth: small trainings with one thing changed in each (claims 3 to 9 and 11).

Run from the repository's root:  python -m benchmarks.coco_inr_claims [--claims 3 6] [--steps 600] ...
3: the gain of attention with 3, 6, 12 and 24 views.   4: fewer and more prototypes, no attention among them.   5:
error-bounded against even samples, on the trained networks.   6: without eikonal loss.   7: the published code's
eikonal points.   8: prototypes once a step, from one table, and baked: exact, and their time.   9: pruning dead codes.
11: claims 1 and 6 on photos of a real head (`--data`, a folder in IDR layout with masks). Claim 10 is exact and tested
(tests/surface, tests/models/test_coco_inr.py, tests/codebook/test_attention.py).
Each run is kept in benchmarks/runs as it ends, and shared between claims and with coco_inr_prior: a stopped benchmark
goes on where it was. `--claims` says what is trained; rows are written of all runs with these settings that are there,
and `--rows-only` trains nothing. Few steps say little: the rows carry the number of steps in their text; their "seeds"
are pairs of object and seed.
"""

import argparse
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

import torch

from benchmarks._coco_inr_exact import attention_times, exactness, step_times
from benchmarks._coco_inr_fits import STORE, Fit, add_options, collect
from benchmarks._coco_inr_rows import (
    HALF,
    NO_LARGER,
    NO_LOWER,
    SMALLER,
    Gate,
    Runs,
    chosen,
    compare,
)
from benchmarks._harness import ROOT, Row, cached, kept, write_rows

VIEWS, FEW_AND_MORE, HEAD_VIEWS = 6, (3, 6, 12, 24), 8
HEAD_DATA = ROOT.parent / "shared" / "data" / "buddha_idr"
Found = Mapping[Fit, Dict[str, Any]]

TRAININGS: Dict[int, List[Tuple[str, int]]] = {
    3: [(variant, views) for views in FEW_AND_MORE for variant in ("default", "none")],
    4: [(variant, VIEWS) for variant in ("default", "prototypes-8", "prototypes-256", "depth-0")],
    5: [("default", VIEWS)],
    6: [("default", VIEWS), ("no-eikonal", VIEWS)],
    7: [("default", VIEWS), ("official-eikonal", VIEWS)],
    9: [("dead-codes-pruned", VIEWS), ("dead-codes", VIEWS)],
    11: [("default", HEAD_VIEWS), ("none", HEAD_VIEWS), ("no-eikonal", HEAD_VIEWS)],
}
"""By claim: variants and how many views they train on; claim 11 on photos, the others on procedural objects."""
CLAIMS = [3, 4, 5, 6, 7, 8, 9, 11]
OBJECT = ("psnr_masked", "normal_error", "chamfer")
"""What is compared; coco_inr_prior also shows PSNR of whole pictures, which are mostly background."""
SLOPES = ("slope_near", "slope_volume")
SAMPLING = ("opacity_error", "opacity_end_error", "depth_error_sampling")


def views_rows(found: Found, setting: str) -> List[Row]:
    """Claim 3: what attention gains with few views and with more, and whether more views help both."""
    claim, rows, gains = "coco-inr/3", [], []
    for views in FEW_AND_MORE:
        pair = [chosen(found, name, views) for name in ("default", "none")]
        rows += compare(claim, "default codebook against no attention", *pair, f"{views} views, {setting}", {}, OBJECT)
        gains.append({
            key: {"psnr_masked": pair[0][key]["psnr_masked"] - pair[1][key]["psnr_masked"]}
            for key in pair[0].keys() & pair[1].keys()
        })  # fmt: skip
    larger = {"psnr_masked": Gate("larger on average", lambda ours, base: ours.mean() > base.mean())}
    for k, (few, more) in enumerate(pairwise(FEW_AND_MORE)):
        what = f"gain by attention with {few} views against with {more}"
        rows += compare(claim, what, gains[k], gains[k + 1], setting, larger, ("psnr_masked",))
        for name, text in (("default", "default codebook"), ("none", "no attention")):
            pair = [chosen(found, name, views) for views in (more, few)]
            rows += compare(claim, f"{text}, {more} views against {few}", *pair, setting, larger, ("psnr_masked",))
    return rows


def variant_rows(found: Found, setting: str) -> List[Row]:
    """Claims 4, 6 and 7: the preset against one with something changed."""
    ours, at = chosen(found, "default", VIEWS), f"{VIEWS} views, {setting}"
    rows, gates = [], {"psnr_masked": NO_LOWER, "chamfer": NO_LARGER}
    for name, text in (
        ("prototypes-8", "64 prototypes against 8"),
        ("prototypes-256", "64 prototypes against 256"),
        ("depth-0", "three self-attentions against none"),
    ):
        rows += compare("coco-inr/4", text, ours, chosen(found, name, VIEWS), at, gates, OBJECT)
    other = chosen(found, "no-eikonal", VIEWS)
    gates = {"slope_near": HALF, "slope_volume": HALF, "normal_error": SMALLER}
    rows += compare("coco-inr/6", "eikonal weight 0.1 against 0", ours, other, at, gates, (*SLOPES, *OBJECT))
    other = chosen(found, "official-eikonal", VIEWS)
    gates = {"psnr_masked": Gate(">= baseline - 0.2 dB", lambda one, base: one.mean() >= base.mean() - 0.2)}
    what = "eikonal points on their rays against the published code's"
    return rows + compare("coco-inr/7", what, ours, other, at, gates, (*SLOPES, *OBJECT))


def sampling_rows(found: Found, setting: str) -> List[Row]:
    """Claim 5: errors of opacity (the largest along a ray, and at its end) and depth, after default runs."""
    ours = chosen(found, "default", VIEWS)

    def even(ending: str) -> Runs:
        return {key: {name: scores[name + ending] for name in SAMPLING} for key, scores in ours.items()}

    at, gates = f"{VIEWS} views, {setting}", {"opacity_error": SMALLER, "depth_error_sampling": SMALLER}
    what = "error-bounded samples against as many even ones"
    rows = compare("coco-inr/5", what, ours, even("_even"), at, gates, SAMPLING)
    what = "error-bounded samples against even ones with as many distances looked at"
    return rows + compare("coco-inr/5", what, ours, even("_even_all"), at, {}, SAMPLING)


def exact_rows(found: Mapping[str, Dict[str, Any]]) -> List[Row]:
    """Claim 8."""
    if "exactness" not in found or "step_times" not in found:
        return []
    exact, times = found["exactness"], found["step_times"]
    gain = times["anew"] / times["once"]
    losses = "losses and gradients of a step in fp64, prototypes once from one table against anew from copies"
    baked = "outputs in fp64, baked prototypes against not"
    time = "training step of coco-inr-tiny with the shipped codebook, prototypes anew in every evaluation over once"
    return [
        Row("coco-inr/8", f"largest relative difference: {losses}", exact["once"], 0.0, "", None, 1, "<= 1e-10",
            exact["once"] <= 1e-10),
        Row("coco-inr/8", f"largest relative difference: {baked}", exact["baked"], 0.0, "", None, 1, "<= 1e-10",
            exact["baked"] <= 1e-10),
        Row("coco-inr/8", time, round(gain, 2), 1.0, "times", None, times["repeats"], "> 1 times", gain > 1),
    ]  # fmt: skip


def pruning_rows(found: Found, others: Mapping[str, Dict[str, Any]], setting: str) -> List[Row]:
    """Claim 9: what pruning dead codes costs in quality and gains in time."""
    claim = "coco-inr/9"
    ours, base = (chosen(found, name, VIEWS) for name in ("dead-codes-pruned", "dead-codes"))
    near = Gate("< 0.5 dB apart on average", lambda one, other: abs(one.mean() - other.mean()) < 0.5)
    what, at = "dead codes pruned against kept, 9 in 10 dead", f"{VIEWS} views, {setting}"
    rows = compare(claim, what, ours, base, at, {"psnr_masked": near}, (*OBJECT, "step_seconds"))
    times = others.get("attention_times")
    for name, text in (("tiny", "coco-inr-tiny's widths"), ("paper", "the paper's widths")) if times else ():
        assert times is not None
        gain = times[f"{name} all"] / times[f"{name} pruned"]
        codes = " over ".join(f"{count:,}" for count in times[f"{name} codes"])
        what = f"codebook attention forward and back at {text}, {codes} codes"
        rows.append(Row(claim, what, round(gain, 2), 1.0, "times", None, times["repeats"], ">= 5 times", gain >= 5))
    return rows


def head_rows(found: Found, setting: str) -> List[Row]:
    """Claim 11: whether claims 1 and 6 keep their signs on photos, which have masks but no known normals."""
    claim, at = "coco-inr/11", f"{HEAD_VIEWS} views, mask loss, {setting}"
    ours, none, loose = (chosen(found, name, HEAD_VIEWS, True) for name in ("default", "none", "no-eikonal"))
    gain = {"psnr_masked": Gate("gain > 0 dB", lambda one, base: one.mean() > base.mean())}
    rows = compare(claim, "default codebook against no attention", ours, none, at, gain, OBJECT)
    gates = {name: SMALLER for name in SLOPES}
    return rows + compare(claim, "eikonal weight 0.1 against 0", ours, loose, at, gates, (*SLOPES, *OBJECT))


def fits_of(claims: List[int], options: argparse.Namespace) -> List[Fit]:
    """Trainings of some claims, seed by seed, so that a stopped benchmark has whole comparisons."""
    fits = []
    for seed in range(options.seeds):
        for target in options.objects:
            for name, views in (pair for claim in claims for pair in TRAININGS.get(claim, []) if claim != 11):
                fits.append(Fit(name, target, views, seed, options.steps, options.size, options.rays))
        for name, views in TRAININGS[11] if 11 in claims else ():
            data, size = options.data, options.head_size
            fits.append(Fit(name, data.name, views, seed, options.steps, size, options.rays, data))
    return fits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", type=int, nargs="+", default=CLAIMS, choices=CLAIMS)
    parser.add_argument("--data", type=Path, default=HEAD_DATA, help="photos of claim 11, in IDR layout")
    parser.add_argument("--head-size", type=int, default=96, help="their width in pixels")
    parser.add_argument("--repeats", type=int, default=5, help="of what is timed")
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    claims = list(options.claims)
    if 11 in claims and not options.rows_only and not (options.data / "image").is_dir():
        print(f"claim 11 is skipped: there is no folder {options.data / 'image'} (--data)")
        claims.remove(11)
    if not options.rows_only:
        collect(fits_of(claims, options), rows_only=False)
    jobs = {8: {"exactness": exactness, "step_times": partial(step_times, options.repeats)},
            9: {"attention_times": partial(attention_times, options.repeats)}}  # fmt: skip
    settings = {"repeats": options.repeats, "threads": options.threads}
    for claim, named in jobs.items() if not options.rows_only else ():
        for name, job in named.items() if claim in claims else ():
            print(name, cached(STORE, name, lambda job=job: {**job(), "repeats": options.repeats}, settings))

    found = collect(fits_of(CLAIMS, options), rows_only=True)
    setting = f"{options.steps} steps of {options.rays} rays"
    drawn, others = f"{setting}, {options.size} pixels", kept(STORE)
    rows = [
        *views_rows(found, drawn),
        *variant_rows(found, drawn),
        *sampling_rows(found, drawn),
        *exact_rows(others),
        *pruning_rows(found, others, drawn),
        *head_rows(found, f"{setting}, {options.head_size} pixels"),
    ]
    rows.sort(key=lambda row: int(row.claim.rpartition("/")[2]))
    print(write_rows("coco_inr_claims", rows) if rows else "no two runs that could be compared are kept")


if __name__ == "__main__":
    main()
