"""Do codes on the body help? A drawn person, few cameras, the same small networks with and without (claims 1 and 3).

Run from the repository's root:  python -m benchmarks.neural_body_claims
1: trained on the first frame alone against all frames, two cameras; scored on the first frame from the other cameras.
3: against a radiance field of the same networks that knows position and frame but no body, four cameras.
Each run is kept in benchmarks/runs as it ends: a stopped benchmark goes on where it was, and `--rows-only` writes the
rows of the runs that are there. Few steps say little: the rows carry the number of steps in their text.
"""

import argparse
import atexit
import copy
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._harness import ROOT, Row, cached, kept, spread, write_rows
from dataparsers.zju_mocap import ZjuMocapDataParserConfig
from method_configs.neural_body import neural_body_tiny
from nerfstudio_ext.export.human_scene import write_human_scene
from nerfstudio_ext.procedural.human import HumanSceneOptions, human_scene
from nerfstudio_ext.surface.sdf_network import encode_frequencies, encoded_dims

OCTAVES = 6
VARIANTS = {
    "one-frame": dict(train_cameras="0,3", frames=1, eval_step=1),
    "all-frames": dict(train_cameras="0,3", eval_step=1000),
    "codes": dict(train_cameras="0,2,3,5"),
    "no-body": dict(train_cameras="0,2,3,5"),
}
"""What is trained on, and how much of it is scored."""


@cache
def capture(frames: int, size: int) -> Path:
    """The drawn person as files; gone when the process ends."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_human_scene(human_scene(HumanSceneOptions(frames, 6, size, 180.0)), folder / "person")
    return folder / "person"


def without_body(model: Any) -> None:
    """Make the model a radiance field of position and frame: the same networks, no codes, no pruning by the body."""
    field = model.field
    inputs, width = encoded_dims(3, OCTAVES) + field.config.latent_width, field.config.width
    field.trunk[0] = nn.Linear(inputs, width)

    def hidden(points: Tensor, frame: Any, volumes: List[Tensor]) -> Tensor:
        latent = volumes[0].expand(len(points), -1)
        return field.trunk(torch.cat([encode_frequencies(points, OCTAVES), latent], dim=-1))

    field.hidden = hidden
    model._volumes_of = lambda number: [model.latent_of(number)]
    for number in range(len(model._frames)):
        model._frames[number].near_body[1:-1, 1:-1, 1:-1] = True


def run(variant: str, seed: int, steps: int, frames: int, size: int) -> Dict[str, float]:
    """One training, scored on cameras that it has not seen."""
    config = copy.deepcopy(neural_body_tiny.config)
    config.vis, config.max_num_iterations = "tensorboard", steps
    config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    config.output_dir, config.timestamp = Path(tempfile.mkdtemp()), "run"
    atexit.register(shutil.rmtree, config.output_dir, ignore_errors=True)
    config.machine.device_type, config.machine.seed = "cpu", seed
    manager = config.pipeline.datamanager
    manager.dataparser = ZjuMocapDataParserConfig(data=capture(frames, size), **VARIANTS[variant])
    manager.train_num_rays_per_batch, config.pipeline.model.num_samples = 256, 32
    config.set_experiment_name()
    torch.manual_seed(seed)
    np.random.seed(seed)
    trainer = config.setup()
    trainer.setup()
    if variant == "no-body":
        without_body(trainer.pipeline.model)
        trainer.optimizers = trainer.setup_optimizers()
    trainer.train()
    scores = trainer.pipeline.get_average_eval_image_metrics(step=steps)
    return {key: scores[key] for key in ("psnr", "psnr_box", "psnr_masked", "mask_iou")}


def compare(claim: str, what: str, ours: Dict[str, Any], base: Dict[str, Any], floor: float) -> List[Row]:
    """Rows over the seeds that both have."""
    seeds = sorted(ours.keys() & base.keys())
    rows = []
    for measure, unit in (("psnr_box", "dB"), ("psnr_masked", "dB"), ("mask_iou", "")):
        values = [np.array([runs[seed][measure] for seed in seeds]) for runs in (ours, base)]
        if not seeds:
            continue
        gain = values[0] - values[1]
        judged = measure == "psnr_box"
        means = [round(float(x.mean()), 3) for x in values]
        rows.append(
            Row(claim, f"{measure}: {what}", *means, unit, spread(gain), len(seeds),
                f"gain >= {floor:g} dB" if judged else None, bool(gain.mean() >= floor) if judged else None)
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows-only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    store = ROOT / "benchmarks" / "runs" / f"neural_body_claims_{arguments.steps}.json"
    runs: Dict[str, Dict[str, Any]] = {variant: {} for variant in VARIANTS}
    for seed in range(arguments.seeds):
        for variant in arguments.variants:
            key = f"{variant}/{seed}"
            if arguments.rows_only and key not in kept(store):
                continue
            job = partial(run, variant, seed, arguments.steps, arguments.frames, arguments.size)
            result = cached(store, key, job)
            runs[variant][str(seed)] = result
            print(
                key, {name: round(value, 3) for name, value in result.items() if isinstance(value, float)}, flush=True
            )
    setting = f"{arguments.size} pixels, {arguments.steps} steps"
    rows = compare(
        "neural-body/1", f"all {arguments.frames} frames against the first alone, 2 cameras, {setting}",
        runs["all-frames"], runs["one-frame"], 1.0,
    )  # fmt: skip
    rows += compare("neural-body/3", f"codes on the body against no body, 4 cameras, {setting}", runs["codes"],
                    runs["no-body"], 2.0)  # fmt: skip
    print(write_rows("neural_body_claims", rows))


if __name__ == "__main__":
    main()
