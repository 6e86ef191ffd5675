"""A real person, one of four cameras held out: what all frames, more cameras and the body are worth (claims 1 to 3 in
spirit, on a recording whose calibration, masks and fitted body are those that users get).

Run from the repository's root, on a capture that `ns-ext human masks` made and a body that `ns-ext human fit` found:

    python -m benchmarks.neural_body_real CAPTURE BODY.npz

Each run is kept in benchmarks/runs as it ends: a stopped benchmark goes on where it was, and `--rows-only` writes the
rows of the runs that are there.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any, Dict

import torch

from benchmarks._harness import ROOT, cached, kept, mean_row, write_rows
from benchmarks._neural_body_variants import Variant, trained_scores, trainer_for, without_body
from dataparsers.zju_mocap import ZjuMocapDataParserConfig

HELD_OUT, BAND = 3, 1
"""Camera that is scored; pixels about the edge of a mask that no ray goes through, for masks are rough."""
VARIANTS = {
    "three-cameras": Variant("0,1,2"),
    "no-body": Variant("0,1,2", change=without_body),
    "two-cameras": Variant("0,2"),
    "one-frame": Variant("0,2", frames=1),
    "one-camera": Variant("0"),
}
PAIRS = (
    ("1", "all frames against the first, 2 cameras, scored on it", "two-cameras", "one-frame", "first_"),
    ("2", "2 cameras against 1", "two-cameras", "one-camera", ""),
    ("2", "3 cameras against 2", "three-cameras", "two-cameras", ""),
    ("3", "codes on the body against no body, 3 cameras", "three-cameras", "no-body", ""),
)


def run(variant: Variant, seed: int, steps: int, size: int, capture: Path, body: Path) -> Dict[str, Any]:
    """One training and its scores on the camera that none sees."""
    parser = ZjuMocapDataParserConfig(
        data=capture, body=body, train_cameras=variant.cameras, frames=variant.frames, eval_step=1, max_side=size
    )
    return trained_scores(trainer_for(variant, seed, steps, parser, BAND), (HELD_OUT,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("capture", type=Path)
    parser.add_argument("body", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--size", type=int, default=128, help="pixels of the longer side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows-only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    store = ROOT / "benchmarks" / "runs" / f"neural_body_real_{arguments.steps}_{arguments.size}.json"
    for seed in range(0 if arguments.rows_only else arguments.seeds):
        for name, variant in VARIANTS.items():
            job = partial(run, variant, seed, arguments.steps, arguments.size, arguments.capture, arguments.body)
            result = cached(store, f"{name}/{seed}", job)
            print(f"{name}/{seed}", {k: round(v, 3) for k, v in result.items() if isinstance(v, float)}, flush=True)
    runs, rows = kept(store), []
    setting = f"held-out camera of a real recording, {arguments.size} pixels, {arguments.steps} steps"
    for claim, what, ours, base, prefix in PAIRS:
        both = [k for k in range(arguments.seeds) if f"{ours}/{k}" in runs and f"{base}/{k}" in runs]
        for measure, unit in (("psnr_box", "dB"), ("psnr_masked", "dB"), ("mask_iou", "")):
            pair = ([runs[f"{name}/{k}"][prefix + measure] for k in both] for name in (ours, base))
            if both:
                rows.append(mean_row(f"neural-body/real-{claim}", f"{measure}: {what}, {setting}", *pair, unit))
    print(write_rows("neural_body_real", rows))


if __name__ == "__main__":
    main()
