"""How many of NeRV's weights can go? Big Buck Bunny at 320x180: shares of the weights that stay after global magnitude
pruning and further training (NeRV, section 3.3), against the whole network after as much training, and against networks
that were smaller from the start.

Run from the repository's root:  python -m benchmarks.boosting_nerv_pruning
Each training is kept in benchmarks/runs as it ends; a stopped benchmark goes on where it was.
"""

import argparse
from functools import partial
from typing import Any, Dict, List, Optional

import numpy as np
import torch

from benchmarks._harness import ROOT, Row, bunny, cached, kept, mean_row, settings_of, trainer_for, write_rows
from nerfstudio_ext.models.stored_video import StoredVideo, clip_psnr, encode_model
from nerfstudio_ext.video.pruning import PruningConfig

PRESET, BUDGET = "nerv_tiny", 200_000
KEEPS = (1.0, 0.8, 0.6, 0.4, 0.2)
"""Shares of the weights that stay; the first is the whole network."""
SMALLER = (0.6, 0.4)
"""Sizes of networks that were smaller from the start, as shares of the budget."""
BITS = 8


def edit(config: Any, frames: int, budget: float, keep: Optional[float] = None) -> None:
    """Frames, size and pruning."""
    config.pipeline.datamanager.dataparser.last_frame = frames - 1
    config.pipeline.model.target_params = budget
    if keep is not None:
        config.pipeline.model.pruning = PruningConfig(keep)


def trained(seed: int, epochs: int, frames: int, budget: float, state: Any = None, keep: Optional[float] = None) -> Any:
    """A model after a training; with the state of an earlier one, pruned and trained on at the preset's own rate."""
    trainer = trainer_for(
        PRESET, bunny(), seed, epochs * frames, partial(edit, frames=frames, budget=budget, keep=keep), "cpu"
    )
    model: Any = trainer.pipeline.model
    if state is not None:
        model.start_pruning(state)
    for step in range(epochs * frames):
        trainer.pipeline.train()
        trainer.train_iteration(step)
    return model.eval()


def point(model: Any) -> Dict[str, float]:
    """Size and quality of a model's file."""
    model.prepare_eval()
    video = StoredVideo(encode_model(model, PRESET, BITS))
    return {"bytes": video.num_bytes, "psnr": clip_psnr(video, model.frames)}


def measure(seed: int, frames: int, first: int, second: int) -> Dict[str, Any]:
    """All points of one seed: the pruned ones start from the same first training."""
    state = {name: value.clone() for name, value in trained(seed, first, frames, BUDGET).state_dict().items()}
    found = {f"keep {keep:g}": point(trained(seed, second, frames, BUDGET, state, keep)) for keep in KEEPS}
    for share in SMALLER:
        found[f"smaller {share:g}"] = point(trained(seed, first + second, frames, share * BUDGET))
    return found


def rows_of(runs: List[Dict[str, Any]], setting: str) -> List[Row]:
    """Each share against the whole network, and against a smaller one."""

    def values(name: str, measure: str) -> List[float]:
        return [run[name][measure] for run in runs]

    rows, whole = [], f"keep {KEEPS[0]:g}"
    for keep in KEEPS[1:]:
        name = f"keep {keep:g}"
        saved = [100 * (1 - one / other) for one, other in zip(values(name, "bytes"), values(whole, "bytes"))]
        psnrs, base = values(name, "psnr"), values(whole, "psnr")
        what = f"{keep:.0%} of the weights stay"
        gate = "loss < 0.5 dB" if keep == 0.6 else None
        passed = bool(np.mean(base) - np.mean(psnrs) < 0.5) if gate else None
        rows.append(mean_row("boosting-nerv/pruning", f"{what}: PSNR, {setting}", psnrs, base, "dB", gate, passed))
        rows.append(mean_row("boosting-nerv/pruning", f"{what}: bytes saved, {setting}", saved, None, "%"))
    for share in SMALLER:
        pair = f"keep {share:g}", f"smaller {share:g}"
        for key, unit, part in (("psnr", "dB", 1), ("bytes", "kB", 1000)):
            ours, base = ([value / part for value in values(name, key)] for name in pair)
            what = f"{share:.0%} of the weights stay, against a network of that size: {key}, {setting}"
            rows.append(mean_row("boosting-nerv/pruning", what, ours, base, unit))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--first", type=int, default=40, help="epochs before pruning")
    parser.add_argument("--second", type=int, default=20, help="epochs after it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows-only", action="store_true", help="write the rows of the trainings that are kept")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    name = f"pruning_{options.frames}_{options.first}_{options.second}.json"
    store = ROOT / "benchmarks" / "runs" / name
    settings = settings_of(PRESET, partial(edit, frames=options.frames, budget=BUDGET))
    runs = []
    for seed in range(options.seeds):
        if options.rows_only and str(seed) not in kept(store):
            continue
        job = partial(measure, seed, options.frames, options.first, options.second)
        runs.append(cached(store, str(seed), job, settings))
        print(seed, {key: value for key, value in runs[-1].items() if " " in key}, flush=True)
    setting = f"{options.frames} frames, {options.first} and {options.second} epochs"
    print(write_rows("boosting_nerv_pruning", rows_of(runs, setting)) if runs else "no training is kept")


if __name__ == "__main__":
    main()
