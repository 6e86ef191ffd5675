"""What do the networks make of holes, in the holes and out of them, and what do fills without a network (claim 12)?

HNeRV-Boost against HNeRV at equal size and epochs, each at its tiny preset's learning rate, at 160x90: Big Buck Bunny
under the papers' two masks and a box that wanders, and with --static a clip of a camera that stands still.

Run from the repository's root:  python -m benchmarks.boosting_nerv_inpainting [--static CLIP]
Each training is kept in benchmarks/runs as it ends; a stopped benchmark goes on where it was.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
from PIL import Image

from benchmarks._harness import ROOT, Row, bunny, cached, fitted, kept, mean_row, settings_of, write_rows
from nerfstudio_ext.video.fills import Scores, inpainted, keep_of, scores

BUDGET = 100_000
"""Stored numbers."""
PRESETS = {"hnerv-boost": "hnerv_boost_tiny", "hnerv": "hnerv_tiny"}
HEIGHT, WIDTH = 90, 160
BOX = 30
"""Side of the wandering box, in pixels."""
STATIC_STEP = 8
"""Every n-th frame of the static clip, so that something moves in it."""
GATE = 0.5
"""Gain in dB that is asked for outside the holes."""


def wandering_masks(folder: Path, frames: int) -> str:
    """A box that moves once across the middle of the frame, as a mask picture for each frame of the source."""
    for k in range(frames):
        keep = np.full((HEIGHT, WIDTH), 255, np.uint8)
        left = round(k * (WIDTH - BOX) / max(1, frames - 1))
        keep[(HEIGHT - BOX) // 2 : (HEIGHT + BOX) // 2, left : left + BOX] = 0
        Image.fromarray(keep).save(folder / f"{k:05d}.png")
    return str(folder)


def measure(clip: Path, step: int, mask: str, method: str, seed: int, frames: int, epochs: int) -> Dict[str, Any]:
    """Scores of one network, and of the fills, on one clip under one mask."""
    with tempfile.TemporaryDirectory() as folder:
        path = wandering_masks(Path(folder), step * (frames - 1) + 1) if mask == "wandering" else mask
        trainer = fitted(PRESETS[method], clip, seed, epochs, partial(edit, step=step, mask=path, frames=frames))
        model = trainer.pipeline.model
        found = trainer.pipeline.get_average_eval_image_metrics()
        source = [model.frames[k] for k in range(len(model.frames))]
        keeps = keep_of(model.masks, len(source))
        fills: Dict[str, Scores] = {
            name: scores(filled, source, keeps) for name, filled in inpainted(source, model.masks).items()
        }
    ours = {name: found[name] for name in ("psnr", "psnr_in_mask", "psnr_out_of_mask")}
    return {"network": ours, "fills": fills, "size": model.size_report()}


def edit(config: Any, step: int, mask: str, frames: int) -> None:
    """Clip, holes and size."""
    parser = config.pipeline.datamanager.dataparser
    parser.frame_step, parser.last_frame, parser.mask = step, step * (frames - 1), mask
    parser.max_side, parser.size = None, (WIDTH, HEIGHT)
    config.pipeline.model.target_params = BUDGET


def rows_of(title: str, runs: Dict[str, List[Dict[str, Any]]]) -> List[Row]:
    """Rows of one clip and mask."""
    ours, base = ([run["network"] for run in runs[method]] for method in PRESETS)
    rows = []
    for part, name, least in (
        ("out of the holes", "psnr_out_of_mask", GATE),
        ("in the holes", "psnr_in_mask", 0.0),
        ("whole frame", "psnr", None),
    ):
        pair = [score[name] for score in ours], [score[name] for score in base]
        gate = None if least is None else f"gain {'>=' if least else '>'} {least:g} dB"
        gain = float(np.mean(np.subtract(*pair)))
        passed = None if least is None else bool(gain >= least if least else gain > 0)
        what = f"{title}: {part}, hnerv-boost against hnerv"
        rows.append(mean_row("boosting-nerv/12", what, *pair, gate=gate, passed=passed))
    holes = [score["psnr_in_mask"] for score in ours]
    for name, score in runs["hnerv-boost"][0]["fills"].items():
        what = f"{title}: in the holes, hnerv-boost against {name}"
        rows.append(mean_row("boosting-nerv/12", what, holes, [score["psnr_in_mask"]]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--static", type=Path, help="a clip whose camera stands still")
    parser.add_argument("--rows-only", action="store_true", help="write the rows of the trainings that are kept")
    arguments = parser.parse_args()
    store = ROOT / "benchmarks" / "runs" / f"inpainting_{arguments.frames}_{arguments.epochs}.json"
    clips = {"bunny": (bunny(), 1, ("center", "disperse", "wandering"))}
    if arguments.static is not None:
        clips["static camera"] = (arguments.static, STATIC_STEP, ("center", "wandering"))
    rows: List[Row] = []
    for name, (clip, step, masks) in clips.items():
        for mask in masks:
            runs: Dict[str, List[Dict[str, Any]]] = {method: [] for method in PRESETS}
            for seed in range(arguments.seeds):
                keys = {method: f"{name}/{mask}/{method}/{seed}" for method in PRESETS}
                if arguments.rows_only and not set(keys.values()) <= set(kept(store)):
                    continue
                for method, key in keys.items():
                    job = partial(measure, clip, step, mask, method, seed, arguments.frames, arguments.epochs)
                    settings = settings_of(
                        PRESETS[method], partial(edit, step=step, mask=mask, frames=arguments.frames)
                    )
                    runs[method].append(cached(store, key, job, settings))
                    print(key, runs[method][-1]["network"], flush=True)
            if runs["hnerv"]:
                rows += rows_of(f"{name}, {mask} mask", runs)
    for row in rows:
        print(f"{row.what:75s} {row.value:7.2f} {row.baseline:7.2f} {'' if row.passed is None else row.passed}")
    print(write_rows("boosting_nerv_inpainting", rows))


if __name__ == "__main__":
    main()
