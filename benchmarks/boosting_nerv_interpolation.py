"""What do the networks show between the frames that they were trained on (claim 11)?

Even frames train, odd ones are scored; Big Buck Bunny at 160x90, tiny presets at equal size and epochs. Slow time
codes (base 1.05) against the papers' 1.25, methods with embeddings against those without, and pictures without a
network.

Run from the repository's root:  python -m benchmarks.boosting_nerv_interpolation [--static CLIP]
Each training is kept in benchmarks/runs as it ends; a stopped benchmark goes on where it was.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from benchmarks._harness import ROOT, Row, bunny, cached, fitted, kept, mean_row, settings_of, write_rows
from benchmarks.boosting_nerv_inpainting import BUDGET, HEIGHT, STATIC_STEP, WIDTH
from nerfstudio_ext.video.fills import interpolated, scores

SLOW, FAST = 1.05, 1.25
VARIANTS: Dict[str, Tuple[str, float]] = {
    "hnerv-boost": ("hnerv_boost_interp_tiny", SLOW),
    "hnerv-boost at 1.25": ("hnerv_boost_interp_tiny", FAST),
    "nerv-boost": ("nerv_boost_tiny", SLOW),
    "nerv-boost at 1.25": ("nerv_boost_tiny", FAST),
    "hnerv": ("hnerv_tiny", SLOW),
    "nerv": ("nerv_tiny", SLOW),
}
"""Preset, and the ratio of its time frequencies."""
PAIRS = (
    ("hnerv-boost", "hnerv-boost at 1.25", 0.0),
    ("nerv-boost", "nerv-boost at 1.25", 1.0),
    ("hnerv-boost", "nerv-boost", 0.0),
    ("hnerv", "nerv", 0.0),
    ("hnerv-boost", "hnerv", 0.0),
)
"""What is held against what, and the gain in dB that is asked for."""


def edit(config: Any, base: float, step: int, frames: int) -> None:
    """Clip, task, size and time codes."""
    parser, model = config.pipeline.datamanager.dataparser, config.pipeline.model
    parser.frame_step, parser.last_frame, parser.task = step, step * (frames - 1), "interpolation"
    parser.max_side, parser.size = None, (WIDTH, HEIGHT)
    model.target_params, model.field.frequency_base = BUDGET, base


def measure(clip: Path, step: int, variant: str, seed: int, frames: int, epochs: int) -> Dict[str, Any]:
    """PSNR of the odd frames: one network's, and without any."""
    preset, base = VARIANTS[variant]
    trainer = fitted(preset, clip, seed, epochs, partial(edit, base=base, step=step, frames=frames))
    frames_of = trainer.pipeline.model.frames
    source = [frames_of[k] for k in range(len(frames_of))]
    anchors = {name: scores(made, source[1::2])["psnr"] for name, made in interpolated(source).items()}
    found = trainer.pipeline.get_average_eval_image_metrics()
    return {"psnr": found["psnr"], "anchors": anchors, "size": trainer.pipeline.model.size_report()}


def rows_of(title: str, runs: Dict[str, List[Dict[str, Any]]]) -> List[Row]:
    """Rows of one clip."""
    rows = []
    for ours, base, least in PAIRS:
        pair = [run["psnr"] for run in runs.get(ours, [])], [run["psnr"] for run in runs.get(base, [])]
        if pair[0] and len(pair[0]) == len(pair[1]):
            gain = float(np.mean(np.subtract(*pair)))
            gate = f"gain {'>=' if least else '>'} {least:g} dB"
            passed = bool(gain >= least if least else gain > 0)
            what = f"{title}: missing frames, {ours} against {base}"
            rows.append(mean_row("boosting-nerv/11", what, *pair, gate=gate, passed=passed))
    for name, value in runs["hnerv-boost"][0]["anchors"].items():
        what = f"{title}: missing frames, hnerv-boost against {name}"
        rows.append(mean_row("boosting-nerv/11", what, [run["psnr"] for run in runs["hnerv-boost"]], [value]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--static", type=Path, help="a clip whose camera stands still")
    parser.add_argument("--rows-only", action="store_true", help="write the rows of the trainings that are kept")
    arguments = parser.parse_args()
    store = ROOT / "benchmarks" / "runs" / f"interpolation_{arguments.frames}_{arguments.epochs}.json"
    clips = {"bunny": (bunny(), 1, list(VARIANTS))}
    if arguments.static is not None:
        clips["static camera"] = (arguments.static, STATIC_STEP, ["hnerv-boost"])
    rows: List[Row] = []
    for name, (clip, step, variants) in clips.items():
        runs: Dict[str, List[Dict[str, Any]]] = {variant: [] for variant in variants}
        for seed in range(arguments.seeds):
            for variant in variants:
                key = f"{name}/{variant}/{seed}"
                if arguments.rows_only and key not in kept(store):
                    continue
                preset, base = VARIANTS[variant]
                settings = settings_of(preset, partial(edit, base=base, step=step, frames=arguments.frames))
                job = partial(measure, clip, step, variant, seed, arguments.frames, arguments.epochs)
                runs[variant].append(cached(store, key, job, settings))
                print(key, runs[variant][-1]["psnr"], flush=True)
        if runs["hnerv-boost"]:
            rows += rows_of(name, runs)
    for row in rows:
        print(f"{row.what:75s} {row.value:7.2f} {row.baseline:7.2f} {'' if row.passed is None else row.passed}")
    print(write_rows("boosting_nerv_interpolation", rows))


if __name__ == "__main__":
    main()
