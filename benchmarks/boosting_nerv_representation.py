"""Does boosting pay at equal size? Bunny at 320x180, equal stored numbers and epochs, three seeds (claims 1 to 4,
parity).

Run from the repository's root:  python -m benchmarks.boosting_nerv_representation
Each of the runs is kept in outputs/benchmarks as it ends; a stopped benchmark goes on where it was.
"""

import argparse
from functools import partial
from typing import Any, Dict, List, Tuple

import numpy as np
import torch

from benchmarks._harness import ROOT, Row, bunny, cached, fit, interleaved_seconds, trainer_for, write_rows

FRAMES, EPOCHS = 32, 40
BUDGET = 199_305
"""Stored numbers of the card's reference HNeRV-Boost (width 24): 125,577 decoder and 73,728 embedding."""
PAIRS = {"hnerv": 0.7, "nerv": 1.5, "e_nerv": 0.0}
"""Baseline stem and the gain in dB that the card asks of its boosted form."""
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
            setattr(model if name == "width" else model.field, name, value)

    return edit


def run(variant: str, seed: int, epochs: int) -> Dict[str, Any]:
    """One fit."""
    return fit(VARIANTS[variant][0], bunny(), seed, epochs, edit_for(variant, epochs), evaluate_every=4)


def final(runs: List[Dict[str, Any]]) -> np.ndarray:
    """Last PSNR of every seed."""
    return np.array([run["curve"][-1][1] for run in runs])


def epochs_to_reach(run: Dict[str, Any], level: float) -> float:
    """Epoch at which the PSNR curve first passes a level, by linear interpolation; infinite where it never does."""
    previous = (0.0, 0.0)
    for epoch, value in run["curve"]:
        if value >= level:
            share = (level - previous[1]) / (value - previous[1])
            return previous[0] + share * (epoch - previous[0])
        previous = (epoch, value)
    return float("inf")


def gain_row(claim: str, what: str, ours: np.ndarray, base: np.ndarray, gate: float, strict: bool = False) -> Row:
    """Mean difference over seeds, with the gate it must meet."""
    gain = ours - base
    passed = bool(gain.mean() > gate if strict else gain.mean() >= gate)
    return Row(
        claim, what, round(float(ours.mean()), 2), round(float(base.mean()), 2), "dB",
        round(float(gain.std(ddof=1)), 2), len(gain), f"gain {'>' if strict else '>='} {gate} dB", passed,
    )  # fmt: skip


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
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    store = ROOT / "outputs" / "benchmarks" / f"representation_{arguments.epochs}.json"
    runs: Dict[str, List[Dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    main_first = sorted(VARIANTS, key=lambda variant: variant not in [*PAIRS, *(f"{stem}_boost" for stem in PAIRS)])
    for variants in (main_first[: 2 * len(PAIRS)], main_first[2 * len(PAIRS) :]):
        for seed in range(arguments.seeds):
            for variant in variants:
                result = cached(store, f"{variant}/{seed}", partial(run, variant, seed, arguments.epochs))
                runs[variant].append(result)
                print(f"seed {seed} {variant}: {result['curve'][-1][1]:.2f} dB, {result['size']}", flush=True)

    rows = []
    for stem, gate in PAIRS.items():
        ours, base = runs[f"{stem}_boost"], runs[stem]
        label = f"{stem.replace('_', '-')}-boost against {stem.replace('_', '-')}, equal stored numbers"
        rows.append(gain_row("boosting-nerv/1", label, final(ours), final(base), gate, strict=gate == 0))
        epochs = np.array([epochs_to_reach(o, b["curve"][-1][1]) for o, b in zip(ours, base)])
        rows.append(
            Row("boosting-nerv/2", f"epochs until {stem.replace('_', '-')}-boost passes its baseline's final PSNR",
                round(float(epochs.mean()), 1), float(arguments.epochs), "epochs", round(float(epochs.std(ddof=1)), 1),
                len(epochs), "at most half", bool(epochs.mean() <= arguments.epochs / 2))
        )  # fmt: skip
        ratio = step_time_ratio(stem)
        share = float(epochs.mean()) * ratio / arguments.epochs
        rows.append(
            Row("boosting-nerv/2", f"wall time until {stem.replace('_', '-')}-boost passes its baseline's final PSNR, "
                f"as share of the baseline's whole training (a boosted step takes {ratio:.2f} of a baseline step)",
                round(share, 2), 1.0, "share", None, len(epochs), None, None)
        )  # fmt: skip
    boost = final(runs["hnerv_boost"])
    rows.append(gain_row("boosting-nerv/3", "hnerv-boost against the same without TAT, wider to the same size",
                         boost, final(runs["hnerv_boost_no_tat"]), 0.3))  # fmt: skip
    rows.append(
        gain_row("boosting-nerv/4", "hnerv-boost with sin against GELU", boost, final(runs["hnerv_boost_gelu"]), 0.2)
    )
    for variant, official in OFFICIAL.items():
        ours = final(runs[variant])
        rows.append(
            Row("boosting-nerv/parity", f"{variant.replace('_', '-')} against the official network, one setting",
                round(float(ours.mean()), 2), official, "dB", round(float(ours.std(ddof=1)), 2), len(ours),
                ">= official - 0.2 dB", bool(ours.mean() >= official - 0.2))
        )  # fmt: skip
    print(write_rows("boosting_nerv_representation", rows))


if __name__ == "__main__":
    main()
