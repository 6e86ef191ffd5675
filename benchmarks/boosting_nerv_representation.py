"""Does boosting pay at equal size? Bunny at 320x180, equal budgets and epochs, three seeds (claims 1 to 4, parity).

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
    kept,
    settings_of,
    spread,
    write_rows,
)

FRAMES, EPOCHS = 32, 40
BUDGET = 199_305
"""Stored numbers of the card's reference HNeRV-Boost (width 24): 125,577 decoder and 73,728 embedding."""
PAIRS = {"hnerv": 0.7, "nerv": 1.5, "e_nerv": 0.0}
"""Baseline stem and the gain in dB that the card asks of its boosted form."""
PUBLISHED_RATES = {
    "hnerv_boost": 3e-3,
    "hnerv": 1e-3,
    "nerv_boost": 3e-3,
    "nerv": 5e-4,
    "e_nerv_boost": 1.5e-3,
    "e_nerv": 5e-4,
}
"""Learning rates of the papers, for trainings thirty times as long; the -tiny presets have the best of a short sweep by
powers of two at this length (claim 1b)."""
MAIN = [*PUBLISHED_RATES, *(f"{stem}_swept" for stem in PUBLISHED_RATES)]
OFFICIAL = {"hnerv_boost": 25.9, "hnerv_47": 24.5}
"""PSNR of the official networks and recipe in this very setting (method card section 9)."""

HNERV_BOOST = {"lr": PUBLISHED_RATES["hnerv_boost"]}
VARIANTS: Dict[str, Tuple[str, Dict[str, Any]]] = {
    **{stem: (f"{stem}_tiny", {"lr": rate}) for stem, rate in PUBLISHED_RATES.items()},
    **{f"{stem}_swept": (f"{stem}_tiny", {}) for stem in PUBLISHED_RATES},
    "hnerv_boost_no_tat": ("hnerv_boost_tiny", {**HNERV_BOOST, "modulation": "none"}),
    "hnerv_boost_gelu": ("hnerv_boost_tiny", {**HNERV_BOOST, "activation": "gelu"}),
    "hnerv_47": ("hnerv_tiny", {"lr": PUBLISHED_RATES["hnerv"], "width": 47}),
}
"""Preset and the fields of its network, learning rate or width that differ."""


def edit_for(variant: str):
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
    return fit(VARIANTS[variant][0], bunny(), seed, epochs, edit_for(variant), evaluate_every=4)


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
    steps = np.array([ours[seed]["step_seconds"] / base[seed]["step_seconds"] for seed in seeds])
    share = epochs * steps / epochs_in_all
    what = what_of(name)
    return [
        Row("boosting-nerv/2", f"epoch at which {what}", round(float(epochs.mean()), 1), float(epochs_in_all),
            "epochs", spread(epochs), len(seeds), "at most half", half),
        Row("boosting-nerv/2", f"training time after which {what}, over the baseline's whole training",
            round(float(share.mean()), 2), 1.0, "share", spread(share), len(seeds), None, None),
    ]  # fmt: skip


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
                settings = settings_of(VARIANTS[variant][0], edit_for(variant))
                result = cached(store, key, partial(run, variant, seed, arguments.epochs), settings)
                runs[variant][seed] = result
                print(f"seed {seed} {variant}: {result['curve'][-1][1]:.2f} dB, {result['size']}", flush=True)

    rows: List[Row] = []
    for stem, gate in PAIRS.items():
        ours, base = runs[f"{stem}_boost"], runs[stem]
        name = stem.replace("_", "-")
        what = f"{name}-boost against {name}, sizes within 1.4 %, published learning rates"
        rows += gain_row("boosting-nerv/1", what, ours, base, gate, strict=gate == 0)
        what = f"{name}-boost against {name}, sizes within 1.4 %, each at the best rate of a sweep"
        rows += gain_row("boosting-nerv/1b", what, runs[f"{stem}_boost_swept"], runs[f"{stem}_swept"], 0.0, strict=True)
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
