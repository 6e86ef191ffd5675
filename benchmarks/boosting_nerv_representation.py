"""Does boosting pay at equal size? Bunny at 320x180, equal stored numbers and epochs, three seeds (claims 1 to 4,
parity).

Run from the repository's root:  python -m benchmarks.boosting_nerv_representation
Each run is kept in benchmarks/runs as it ends: a stopped benchmark goes on where it was, and `--rows-only` writes the
rows of the seeds that are there.
"""

import argparse
from functools import partial
from typing import Any, Dict, List, Tuple

import numpy as np
import torch

from benchmarks._harness import (
    ROOT,
    Row,
    bunny,
    cached,
    fit,
    interleaved_seconds,
    kept,
    spread,
    trainer_for,
    write_rows,
)

FRAMES, EPOCHS = 32, 40
BUDGET = 199_305
"""Stored numbers of the card's reference HNeRV-Boost (width 24): 125,577 decoder and 73,728 embedding."""
PAIRS = {"hnerv": 0.7, "nerv": 1.5, "e_nerv": 0.0}
"""Baseline stem and the gain in dB that the card asks of its boosted form."""
MAIN = [variant for stem in PAIRS for variant in (f"{stem}_boost", stem)]
OFFICIAL = {"hnerv_boost": 25.9, "hnerv_47": 24.5}
"""PSNR of the official networks and recipe in this very setting (method card section 9)."""

VARIANTS: Dict[str, Tuple[str, Dict[str, Any]]] = {
    "hnerv_boost": ("hnerv_boost_tiny", {}),
    "hnerv": ("hnerv_tiny", {}),
    "nerv_boost": ("nerv_boost_tiny", {}),
    "nerv": ("nerv_tiny", {}),
    "e_nerv_boost": ("e_nerv_boost_tiny", {}),
    "e_nerv": ("e_nerv_tiny", {}),
    "hnerv_boost_no_tat": ("hnerv_boost_tiny", {"modulation": "none"}),
    "hnerv_boost_gelu": ("hnerv_boost_tiny", {"activation": "gelu"}),
    "hnerv_47": ("hnerv_tiny", {"width": 47}),
}


def edit_for(variant: str, epochs: int):
    """Size, clip and the variant's own change."""

    def edit(config: Any) -> None:
        model, parser = config.pipeline.model, config.pipeline.datamanager.dataparser
        parser.last_frame = FRAMES - 1
        model.target_params = BUDGET
        for name, value in VARIANTS[variant][1].items():
            owner = {"width": model, "lr": config.optimizers["field"]["optimizer"]}.get(name, model.field)
            setattr(owner, name, value)

    return edit


def run(variant: str, seed: int, epochs: int) -> Dict[str, Any]:
    """One fit."""
    return fit(VARIANTS[variant][0], bunny(), seed, epochs, edit_for(variant, epochs), evaluate_every=4)


Runs = Dict[int, Dict[str, Any]]
"""Fits of one variant by seed."""


def final(runs: Runs, seeds: List[int]) -> np.ndarray:
    """Last PSNR of these seeds."""
    return np.array([runs[seed]["curve"][-1][1] for seed in seeds])


def epochs_to_reach(run: Dict[str, Any], level: float) -> float:
    """Epoch at which the PSNR curve first passes a level, by linear interpolation; infinite where it never does."""
    previous = (0.0, 0.0)
    for epoch, value in run["curve"]:
        if value >= level:
            share = (level - previous[1]) / (value - previous[1])
            return previous[0] + share * (epoch - previous[0])
        previous = (epoch, value)
    return float("inf")


def gain_row(claim: str, what: str, ours: Runs, base: Runs, gate: float, strict: bool = False) -> List[Row]:
    """Mean PSNR of both, and the gate that their difference must meet; nothing where no seed has both."""
    seeds = sorted(ours.keys() & base.keys())
    if not seeds:
        return []
    gain = final(ours, seeds) - final(base, seeds)
    passed = bool(gain.mean() > gate if strict else gain.mean() >= gate)
    values = [round(float(final(runs, seeds).mean()), 2) for runs in (ours, base)]
    gate_text = f"gain {'>' if strict else '>='} {gate} dB"
    return [Row(claim, what, *values, "dB", spread(gain), len(seeds), gate_text, passed)]


def what_of(name: str) -> str:
    """What the rows on convergence tell."""
    return f"{name} passes its baseline's final PSNR"


def convergence_rows(stem: str, ours: Runs, base: Runs, epochs_in_all: int) -> List[Row]:
    """How soon the boosted form passes what its baseline ends at, in epochs and in time."""
    seeds = sorted(ours.keys() & base.keys())
    if not seeds:
        return []
    name = f"{stem.replace('_', '-')}-boost"
    epochs = np.array([epochs_to_reach(ours[seed], base[seed]["curve"][-1][1]) for seed in seeds])
    if not np.isfinite(epochs).all():  # some seed never does; a mean would hide it
        what = f"epoch at which {what_of(name)}"
        return [Row("boosting-nerv/2", what, None, epochs_in_all, "epochs", None, len(seeds), "at most half", False)]
    half = bool(epochs.mean() <= epochs_in_all / 2)
    share = float(epochs.mean()) * step_time_ratio(stem) / epochs_in_all
    what = what_of(name)
    return [
        Row("boosting-nerv/2", f"epoch at which {what}", round(float(epochs.mean()), 1), float(epochs_in_all),
            "epochs", spread(epochs), len(seeds), "at most half", half),
        Row("boosting-nerv/2", f"training time after which {what}, over the baseline's whole training",
            round(share, 2), 1.0, "share", None, len(seeds), None, None),
    ]  # fmt: skip


def step_time_ratio(stem: str) -> float:
    """Median training step of the boosted form over its baseline's, timed turn by turn."""
    trainers = {
        name: trainer_for(VARIANTS[name][0], bunny(), 0, 100, edit_for(name, 1), "cpu")
        for name in (stem, f"{stem}_boost")
    }
    steps = {name: (lambda trainer=trainer: trainer.train_iteration(0)) for name, trainer in trainers.items()}
    times = interleaved_seconds(steps, repeats=15)
    return float(np.median(times[f"{stem}_boost"]) / np.median(times[stem]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows-only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    store = ROOT / "benchmarks" / "runs" / f"representation_{arguments.epochs}.json"
    runs: Dict[str, Runs] = {variant: {} for variant in VARIANTS}
    for variants in (MAIN, [variant for variant in VARIANTS if variant not in MAIN]):
        for seed in range(arguments.seeds):
            for variant in variants:
                key = f"{variant}/{seed}"
                if arguments.rows_only and key not in kept(store):
                    continue
                result = cached(store, key, partial(run, variant, seed, arguments.epochs))
                runs[variant][seed] = result
                print(f"seed {seed} {variant}: {result['curve'][-1][1]:.2f} dB, {result['size']}", flush=True)

    rows: List[Row] = []
    for stem, gate in PAIRS.items():
        ours, base = runs[f"{stem}_boost"], runs[stem]
        name = stem.replace("_", "-")
        what = f"{name}-boost against {name}, equal stored numbers"
        rows += gain_row("boosting-nerv/1", what, ours, base, gate, strict=gate == 0)
        rows += convergence_rows(stem, ours, base, arguments.epochs)
    boost = runs["hnerv_boost"]
    what = "hnerv-boost against the same without TAT, wider to the same size"
    rows += gain_row("boosting-nerv/3", what, boost, runs["hnerv_boost_no_tat"], 0.3)
    rows += gain_row("boosting-nerv/4", "hnerv-boost with sin against GELU", boost, runs["hnerv_boost_gelu"], 0.2)
    for variant, official in OFFICIAL.items():
        ours = runs[variant]
        if ours:
            values = final(ours, sorted(ours))
            what = f"{variant.replace('_', '-')} against the official network, one setting"
            rows.append(
                Row("boosting-nerv/parity", what, round(float(values.mean()), 2), official, "dB", spread(values),
                    len(values), ">= official - 0.2 dB", bool(values.mean() >= official - 0.2))
            )  # fmt: skip
    print(write_rows("boosting_nerv_representation", rows))


if __name__ == "__main__":
    main()
