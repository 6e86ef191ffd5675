"""Do codes on the body help, and which parts of the method? A drawn person and small networks (claims 1 to 12).

Run from the repository's root:  python -m benchmarks.neural_body_claims
1: trained on all frames against the first alone, two cameras, scored on the first frame.   2: one, two, four cameras.
3: against a radiance field of the same networks that knows position and frame but no body.   4: against raw codes,
looked up without the tower.   5: held-out poses, against trained ones and against no body; and colours measured in the
body's frame, as the preset has it, while all other runs measure them in the world's, as the paper.   6: the latent code
of a frame, with and without wandering exposure.   7: four levels against the finest.   9: exact against official places
of the levels.   11: samples near the body against all.   12: the mesh against the drawn body. Claims 8 and 10 are exact
and tested (tests/models/test_neural_body.py, tests/human/test_sparse_conv.py).
Each run is kept in benchmarks/runs as it ends: a stopped benchmark goes on where it was, and `--rows-only` writes the
rows of the runs that are there. Few steps say little: the rows carry the number of steps in their text.
"""

import argparse
from functools import partial
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import torch

from benchmarks._harness import ROOT, Row, cached, kept, mean_row, usable, write_rows
from benchmarks._neural_body_variants import SCORED_CAMERAS, VARIANTS, preset_numbers, run

Runs = Dict[str, Dict[str, Any]]
"""Results by seed, by variant."""
VOXEL = 2.0
"""Side of a voxel in cm."""
COLOURS = "colours measured in the body's frame against in the world's"

PAIRS: Dict[int, List[Tuple[str, str, str, str, Optional[float]]]] = {
    1: [("all frames against the first, 2 cameras, scored on it", "two-cameras", "one-frame", "first_", 1.0)],
    2: [
        ("2 cameras against 1", "two-cameras", "one-camera", "", None),
        ("4 cameras against 2", "codes", "two-cameras", "", None),
    ],
    3: [("codes on the body against no body", "codes", "no-body", "", 2.0)],
    4: [("tower against raw codes in the finest voxels", "codes", "no-tower", "", 2.0)],
    5: [
        ("held-out poses, codes on the body against no body", "held-out", "held-out-no-body", "novel_pose_", None),
        (f"held-out poses, {COLOURS}", "held-out-body-frame", "held-out", "novel_pose_", None),
    ],
    6: [
        ("latent codes against none, exposure wanders by 30%", "gain", "gain-no-latent", "", 1.0),
        ("latent codes against none, exposure stays", "codes", "no-latent", "", None),
    ],
    7: [("four levels against the finest", "codes", "one-level", "", None)],
    9: [("exact places of the levels against the official ones", "codes", "official-levels", "", None)],
    11: [],
    12: [],
}  # fmt: skip
"""By claim: what is compared, ours, baseline, the scores' prefix, and the gain in dB that is asked for."""
OTHERS = {5: ["held-out"], 11: ["codes", "no-pruning"], 12: ["codes", "one-frame-four-cameras"]}
"""Variants that a claim needs beside its pairs."""


def needed(claims: List[int]) -> List[str]:
    """Variants in the order of the claims."""
    names = [name for claim in claims for _, *pair, _, _ in PAIRS[claim] for name in pair]
    return list(dict.fromkeys([*names, *(name for claim in claims for name in OTHERS.get(claim, []))]))


def values(runs: Runs, pair: Tuple[str, str], measures: Tuple[str, str]) -> Tuple[List[float], List[float]]:
    """A score of two variants over the seeds that both have."""
    found = [[runs.get(name, {}), measure] for name, measure in zip(pair, measures)]
    both = [seed for seed in sorted(found[0][0].keys() & found[1][0].keys())
            if all(results[seed].get(measure) is not None for results, measure in found)]  # fmt: skip
    ours, base = ([float(results[seed][measure]) for seed in both] for results, measure in found)
    return ours, base


def compare(claim: int, what: str, runs: Runs, pair: Tuple[str, str], prefix: str, floor: Optional[float]) -> List[Row]:
    """Rows of one pair; the gate is on the box, as the paper scores."""
    rows = []
    for measure, unit in (("psnr_box", "dB"), ("psnr_masked", "dB"), ("mask_iou", "")):
        ours, base = values(runs, pair, (prefix + measure,) * 2)
        if not ours:
            continue
        gate, passed = None, None
        if measure == "psnr_box" and floor is not None:
            gate, passed = f"gain >= {floor:g} dB", bool(np.mean(ours) - np.mean(base) >= floor)
        rows.append(mean_row(f"neural-body/{claim}", f"{measure}: {what}", ours, base, unit, gate, passed))
    return rows


def other_rows(claim: int, runs: Runs, setting: str) -> List[Row]:
    """Rows of what is no gain of one score over a baseline."""
    name = f"neural-body/{claim}"

    def row(what: str, pair: Tuple[str, str], measures: Tuple[str, str], unit: str, gate: Optional[str] = None) -> List:
        ours, base = values(runs, pair, measures)
        if not ours:
            return []
        mean, other = float(np.mean(ours)), float(np.mean(base))
        passed = {None: None, "< 0.2 dB apart": abs(mean - other) < 0.2, ">= 2 times quicker": other >= 2 * mean}[gate]
        return [mean_row(name, f"{what}, {setting}", ours, base, unit, gate, passed)]

    if claim == 5:
        measures = ("novel_pose_psnr_box", "psnr_box")
        pair, walk = ("held-out-body-frame", "held-out"), ("walk_psnr_masked",) * 2
        return [
            *row("psnr_box: held-out poses against trained ones", ("held-out", "held-out"), measures, "dB"),
            *row(f"psnr_box: trained poses, {COLOURS}", pair, ("psnr_box",) * 2, "dB"),
            *row(f"psnr_masked: poses of a walk, {COLOURS}", pair, walk, "dB"),
        ]
    pruning = ("codes", "no-pruning")
    if claim == 11:
        return [
            *row("psnr_box: samples near the body against all", pruning, ("psnr_box",) * 2, "dB", "< 0.2 dB apart"),
            *row("processor time of rendering a picture, samples near the body against all", pruning,
                 ("render_ms",) * 2, "ms", ">= 2 times quicker"),
            *row("processor time of training, samples near the body against all", pruning, ("train_seconds",) * 2, "s"),
        ]  # fmt: skip
    if claim == 12:
        what = f"distance of mesh and drawn body (a voxel has {VOXEL:g} cm), all frames against the first, 4 cameras"
        return row(what, ("codes", "one-frame-four-cameras"), ("chamfer", "chamfer"), "cm")
    return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", type=int, nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows-only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    store = ROOT / "benchmarks" / "runs" / f"neural_body_claims_{arguments.steps}.json"
    settings = {"frames": arguments.frames, "size": arguments.size, "scored": list(SCORED_CAMERAS), **preset_numbers()}
    for seed in range(0 if arguments.rows_only else arguments.seeds):
        for name in needed(arguments.claims):
            job = partial(run, VARIANTS[name], seed, arguments.steps, arguments.frames, arguments.size)
            result = cached(store, f"{name}/{seed}", job, settings)
            print(f"{name}/{seed}", {k: round(v, 3) for k, v in result.items() if isinstance(v, float)}, flush=True)
    runs: Runs = {name: {} for name in VARIANTS}
    for key, result in kept(store).items():
        name, _, seed = key.partition("/")
        if usable(result, settings) and int(seed) < arguments.seeds:
            runs[name][seed] = result
    setting = f"{arguments.frames} frames, {arguments.size} pixels, {arguments.steps} steps"
    rows = []
    for claim, pairs in PAIRS.items():
        for what, ours, base, prefix, floor in pairs:
            rows += compare(claim, f"{what}, {setting}", runs, (ours, base), prefix, floor)
        rows += other_rows(claim, runs, setting)
    print(write_rows("neural_body_claims", rows))


if __name__ == "__main__":
    main()
