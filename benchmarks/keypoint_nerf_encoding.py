"""Does it help to know where a point is relative to keypoints? One network, several encodings, people never seen, in
the world of training and in one that is turned and moved (claims 3, 4 and 5).

Run from the repository's root:  python -m benchmarks.keypoint_nerf_encoding
Each run is kept in benchmarks/runs as it ends: a stopped benchmark goes on where it was, and `--rows-only` writes the
rows of the runs that are there.
"""

import argparse
import copy
import dataclasses
import math
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras

from benchmarks._harness import ROOT, Row, cached, kept, spread, write_rows
from method_configs.keypoint_nerf import keypoint_nerf_tiny
from nerfstudio_ext.human.subject import Subject, SubjectStore

ENCODINGS = ("rel_z_decay", "rel_z", "world_xyz", "none")
TURN, SHIFT = math.radians(60), (2.0, 0.0, 0.0)


class TurnedStore(SubjectStore):
    """The same people and cameras in a world that is turned about the vertical axis and moved."""

    def __init__(self, store: SubjectStore) -> None:
        self._store, self.keypoint_names = store, store.keypoint_names
        c, s = math.cos(TURN), math.sin(TURN)
        self._rotation, self._shift = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]), torch.tensor(SHIFT)

    def __len__(self) -> int:
        return len(self._store)

    def name(self, index: int) -> str:
        return self._store.name(index)

    def poses(self, poses: torch.Tensor) -> torch.Tensor:
        turned = self._rotation @ poses
        return torch.cat([turned[..., :3], turned[..., 3:] + self._shift[:, None]], dim=-1)

    def cameras(self, index: int) -> Cameras:
        cameras = self._store.cameras(index)
        cameras.camera_to_worlds = self.poses(cameras.camera_to_worlds)
        return cameras

    def subject(self, index: int) -> Subject:
        subject = self._store.subject(index)
        keypoints = subject.keypoints @ self._rotation.T + self._shift
        return dataclasses.replace(subject, poses=self.poses(subject.poses), keypoints=keypoints)


def score(pipeline: Any, turned: bool) -> float:
    """PSNR in dB of the unseen people's own pixels, mean over their held-out pictures."""
    model, dataset = pipeline.model, pipeline.datamanager.eval_dataset
    store, cameras = model._store, copy.deepcopy(dataset.cameras)
    if turned:
        model._store = TurnedStore(store)
        cameras.camera_to_worlds = model._store.poses(cameras.camera_to_worlds)
    model._encoded.clear()
    try:
        values = []
        for k in range(len(dataset)):
            outputs = model.get_outputs_for_camera(cameras[k : k + 1])
            metrics, _ = model.get_image_metrics_and_images(outputs, dataset[k])
            values.append(metrics["psnr_masked"])
        return float(np.mean(values))
    finally:
        model._store = store
        model._encoded.clear()


def run(encoding: str, seed: int, steps: int, size: int, people: int) -> Dict[str, Any]:
    """One training, scored in both worlds."""
    config = copy.deepcopy(keypoint_nerf_tiny.config)
    config.vis, config.max_num_iterations, config.steps_per_eval_image = "tensorboard", steps, 0
    config.output_dir, config.timestamp = Path(tempfile.mkdtemp()), "run"
    config.machine.device_type, config.machine.seed = "cpu", seed
    config.pipeline.model.field.encoding = encoding
    parser = config.pipeline.datamanager.dataparser
    parser.size, parser.people, parser.test_people = size, people, 4
    config.set_experiment_name()
    torch.manual_seed(seed)
    np.random.seed(seed)
    trainer = config.setup()
    trainer.setup()
    trainer.train()
    pipeline = trainer.pipeline.eval()
    return {"psnr": score(pipeline, False), "psnr_turned": score(pipeline, True)}


def compare(claim: str, what: str, ours: List[float], base: List[float], gate: str, passed: bool) -> Row:
    gains = [one - other for one, other in zip(ours, base)]
    means = [round(float(np.mean(values)), 3) for values in (ours, base)]
    return Row(claim, what, *means, "dB", spread(gains), len(gains), gate, passed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encodings", nargs="+", default=list(ENCODINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows-only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    store = ROOT / "benchmarks" / "runs" / f"keypoint_nerf_encoding_{arguments.steps}_{arguments.size}.json"
    runs: Dict[str, Dict[int, Dict[str, Any]]] = {encoding: {} for encoding in ENCODINGS}
    for seed in range(arguments.seeds):
        for encoding in arguments.encodings:
            key = f"{encoding}/{seed}"
            if arguments.rows_only and key not in kept(store):
                continue
            task = partial(run, encoding, seed, arguments.steps, arguments.size, arguments.people)
            runs[encoding][seed] = cached(store, key, task)
            print(key, {name: round(runs[encoding][seed][name], 2) for name in ("psnr", "psnr_turned")}, flush=True)
    setting = f"unseen people, {arguments.steps} steps at {arguments.size} pixels"
    rows = []
    for other in ENCODINGS[1:]:
        seeds = sorted(runs["rel_z_decay"].keys() & runs[other].keys())
        if not seeds:
            continue
        ours, base = ([runs[name][seed]["psnr"] for seed in seeds] for name in ("rel_z_decay", other))
        gain, floor = float(np.mean(ours) - np.mean(base)), 0.0 if other == "rel_z" else 0.3
        claim, what = (
            "keypoint-nerf/5" if other == "rel_z" else "keypoint-nerf/3",
            f"rel_z_decay against {other}, {setting}",
        )
        rows.append(compare(claim, what, ours, base, f">= {floor:g} dB", gain >= floor))
    for name, gate in (("rel_z_decay", "drop < 0.1 dB"), ("world_xyz", "drop > 1 dB")):
        here, there = ([entry[key] for entry in runs[name].values()] for key in ("psnr", "psnr_turned"))
        if here:
            drop = float(np.mean(here) - np.mean(there))
            passed = drop < 0.1 if name == "rel_z_decay" else drop > 1
            what = f"{name} in a turned and moved world; baseline: where it was trained"
            rows.append(compare("keypoint-nerf/4", what, there, here, gate, passed))
    write_rows("keypoint_nerf_encoding", rows)


if __name__ == "__main__":
    main()
