"""Which parts of KeypointNeRF matter for people never seen: short trainings of one network with another encoding of
points, with regressed instead of blended colours, and with wrong keypoints in training (claims 3, 4, 5, 7 and 9).

Run from the repository's root:  python -m benchmarks.keypoint_nerf_ablation [--variants rel_z_decay world_xyz]
Each run is kept in benchmarks/runs as it ends: a stopped benchmark goes on where it was, and `--rows-only` writes the
rows of the runs that are there.
"""

import argparse
import atexit
import copy
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._harness import ROOT, Row, cached, kept, spread, write_rows
from benchmarks._people import Change, ChangedStore, changed, noisy, person_psnr, turned, unchanged, wanted_camera
from method_configs.keypoint_nerf import keypoint_nerf_tiny
from nerfstudio_ext.fields.keypoint_nerf_field import EncodedViews, KeypointNeRFField, KeypointNeRFFieldConfig
from nerfstudio_ext.human.view_sampling import Seen, sample_maps

OURS = "rel_z_decay"
ENCODINGS = (OURS, "rel_z", "world_xyz", "none")
VARIANTS = (*ENCODINGS, "regressed", "jitter")
"""The method's own comes first; the others differ from it in one thing each."""
JITTER, TEST_NOISE = 0.02, 0.05
"""Metres of keypoint noise in training and at test."""
TEST_PEOPLE, TEST_PICTURES = 4, 2
PATCH = 14
"""Side of the square that a step looks at: less than the preset's, as pictures are smaller."""


class RegressedField(KeypointNeRFField):
    """Colour comes out of a network that sees all that the blending sees, fused over the views: pixelNeRF's way."""

    def __init__(self, config: KeypointNeRFFieldConfig, num_keypoints: int) -> None:
        super().__init__(config, num_keypoints)
        inputs = 2 * config.latent_width + 2 * (3 + config.texture_channels)
        self.regression = nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(),
                                        nn.Linear(64, 3), nn.Sigmoid())  # fmt: skip

    def forward(
        self, points: Tensor, directions: Tensor, seen: Seen, encoded: EncodedViews, noise: float = 0.0
    ) -> Tuple[Tensor, Tensor, Tensor]:
        fused, views = self.fuse(points, seen, encoded), encoded.views
        density = self._density(fused, seen.valid.any(0), noise)
        height, width = views.rgb.shape[-2:]
        maps = [sample_maps(x, seen.pixels, height, width) for x in (views.rgb, encoded.texture)]
        features = torch.cat(maps, dim=-1)
        share = (seen.weight / (seen.weight.sum(0) + 1e-6))[..., None]
        mean = (share * features).sum(0)
        variance = (share * (features - mean).square()).sum(0)
        return density, self.regression(torch.cat([fused, mean, variance], dim=-1)), share[..., 0]


def wandering(subject: Any, index: int) -> Any:
    """Keypoints that are off anew each time."""
    return noisy(JITTER, int(torch.randint(2**31, ())))(subject, index)


@torch.no_grad()
def score(pipeline: Any, change: Change = unchanged) -> float:
    """PSNR in dB of the unseen people's own pixels, mean over some held-out pictures of each."""
    model, dataset, values = pipeline.model, pipeline.datamanager.eval_dataset, []
    views = dataset.metadata["views"]
    of_person = {index: [k for k, (who, _) in enumerate(views) if who == index] for index, _ in views}
    with changed(model, change):
        for positions in of_person.values():
            for k in positions[:: -(-len(positions) // TEST_PICTURES)]:
                batch, sources = dataset[k], dataset.metadata["sources"][views[k][0]]
                where = batch["fg_mask"][..., 0] > 0.5
                camera = wanted_camera(dataset.cameras[k : k + 1], sources, change is turned)
                picture = model(camera.generate_rays(camera_indices=0, keep_shape=True)[where])["rgb"]
                values.append(person_psnr(picture.cpu(), batch["image"][where], batch["fg_mask"][where]))
    return float(np.mean(values))


def run(variant: str, seed: int, steps: int, size: int, people: int) -> Dict[str, Any]:
    """One training, scored as it is, in a turned and moved world, and with wrong keypoints."""
    config: Any = copy.deepcopy(keypoint_nerf_tiny.config)
    config.vis, config.max_num_iterations, config.steps_per_eval_image = "tensorboard", steps, 0
    config.steps_per_save = steps
    config.machine.device_type, config.machine.seed = "cpu", seed
    if variant in ENCODINGS:
        config.pipeline.model.field.encoding = variant
    elif variant == "regressed":
        config.pipeline.model.field._target = RegressedField
    manager = config.pipeline.datamanager
    manager.patch_size, manager.train_num_rays_per_batch = PATCH, PATCH**2
    parser = manager.dataparser
    parser.size, parser.people, parser.test_people = size, people, TEST_PEOPLE
    config.output_dir, config.timestamp = Path(tempfile.mkdtemp()), "run"
    atexit.register(shutil.rmtree, config.output_dir, ignore_errors=True)
    config.set_experiment_name()
    torch.manual_seed(seed)
    np.random.seed(seed)
    trainer = config.setup()
    trainer.setup()
    model = trainer.pipeline.model
    if variant == "jitter":
        model._store = ChangedStore(model._store, wandering)
    start = time.process_time()
    trainer.train()
    minutes = (time.process_time() - start) / 60
    model._store = trainer.pipeline.datamanager.eval_dataset.store
    pipeline = trainer.pipeline.eval()
    changes = {"psnr": unchanged, "psnr_turned": turned, "psnr_noisy": noisy(TEST_NOISE, seed + 1)}
    return {"minutes": minutes, **{name: score(pipeline, change) for name, change in changes.items()}}


def compare(claim: str, what: str, ours: List[float], base: List[float], gate: str, passed: bool) -> Row:
    gains = [one - other for one, other in zip(ours, base)]
    mean, other = (round(float(np.mean(values)), 3) for values in (ours, base))
    return Row(f"keypoint-nerf/{claim}", what, mean, other, "dB", spread(gains), len(gains), gate, passed)


def rows_of(runs: Dict[str, Dict[int, Dict[str, float]]], setting: str) -> List[Row]:
    """The claims, as far as their runs are there."""

    def pair(one: str, other: str, key: str = "psnr") -> Tuple[List[float], List[float]]:
        seeds = sorted(runs[one].keys() & runs[other].keys())
        return [runs[one][seed][key] for seed in seeds], [runs[other][seed][key] for seed in seeds]

    rows = []
    wanted = (("3", "world_xyz", 0.3), ("3", "none", 0.3), ("5", "rel_z", 0.0), ("7", "regressed", 0.0))
    for claim, other, least in wanted:
        ours, base = pair(OURS, other)
        if ours:
            gain = float(np.mean(ours) - np.mean(base))
            rows.append(compare(claim, f"{OURS} and blended colours against {other}, {setting}", ours, base,
                                f">= {least:g} dB", gain >= least))  # fmt: skip
    for name, gate in ((OURS, "drop < 0.1 dB"), ("world_xyz", "drop > 1 dB")):
        here, there = ([entry[key] for entry in runs[name].values()] for key in ("psnr", "psnr_turned"))
        if here:
            drop = float(np.mean(here) - np.mean(there))
            passed = drop < 0.1 if name == OURS else drop > 1
            what = f"{name} in a turned and moved world; baseline: where it was trained"
            rows.append(compare("4", what, there, here, gate, passed))
    sure, unsure = pair("jitter", OURS), pair("jitter", OURS, "psnr_noisy")
    if sure[0]:
        drops = [[exact - noisy for exact, noisy in zip(*values)] for values in zip(sure, unsure)]
        means = [float(np.mean(values)) for values in drops]
        what = (f"what keypoints that are off by {100 * TEST_NOISE:g} cm cost after training with {100 * JITTER:g} cm; "
                "baseline: after training with exact ones")  # fmt: skip
        rows.append(compare("9", what, drops[0], drops[1], "< baseline", means[0] < means[1]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows-only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = {name: getattr(arguments, name) for name in ("steps", "size", "people")}
    store = ROOT / "benchmarks" / "runs" / f"keypoint_nerf_ablation_{arguments.steps}_{arguments.size}.json"
    runs: Dict[str, Dict[int, Dict[str, Any]]] = {variant: {} for variant in VARIANTS}
    for seed in range(arguments.seeds):
        for variant in arguments.variants:
            key = f"{variant}/{seed}"
            if arguments.rows_only and key not in kept(store):
                continue
            task = partial(run, variant, seed, **settings)
            runs[variant][seed] = cached(store, key, task, settings)
            names = ("psnr", "psnr_turned", "psnr_noisy", "minutes")
            print(key, {name: round(runs[variant][seed][name], 2) for name in names}, flush=True)
    setting = f"unseen people, {arguments.steps} steps at {arguments.size} pixels"
    write_rows("keypoint_nerf_ablation", rows_of(runs, setting))


if __name__ == "__main__":
    main()
