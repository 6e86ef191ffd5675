"""What makes surfaces from one photo good? Short trainings of keypoint-icon-tiny with one thing changed in each, scored
on unseen people in quiet (easy) and in strong (hard) poses (claims 1, 2 and 4 to 8 of the plan).

Run from the repository's root:  python -m benchmarks.keypoint_icon_claims [--claims 1 2] [--rows-only]
1: keypoints against depth alone. 2: against ICON's features of the naked body. 4: without normals. 5: the side chosen
by depth or by the body's visibility, or both sides, against the mean of both. 6: true against predicted normals.
7: wrong keypoints, trained with and without jitter. 8: the reach of keypoints and the number of frequencies.
The networks that draw the sides are trained once for each seed and kept in the user's cache. Each run is kept in
benchmarks/runs as it ends: a stopped benchmark goes on where it was, and `--rows-only` writes the rows of those runs.
"""

import argparse
import atexit
import copy
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import torch
from nerfstudio.engine.trainer import Trainer

from benchmarks._harness import ROOT, Row, cached, kept, spread, write_rows
from method_configs.keypoint_icon import keypoint_icon_tiny
from nerfstudio_ext.data.scans import gather_lesson
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.host import cache_dir
from nerfstudio_ext.engine.weights import read_safetensors, write_safetensors
from nerfstudio_ext.fields.photo_surface import PhotoSurface
from nerfstudio_ext.human.photo import Lesson, Sides
from nerfstudio_ext.procedural.people import PeopleOptions, ProceduralPeople
from nerfstudio_ext.procedural.scans import ProceduralScans, ScanOptions
from nerfstudio_ext.surface.person_scores import person_scores

POSES = {"easy": 0.4, "hard": 1.5}
"""Factors on the angles of the joints; training sees 1."""
VARIANTS: Dict[str, Dict[str, Any]] = {
    "keypoints": {},
    "z": {"encoding": "z"},
    "body": {"encoding": "body"},
    "no-normals": {},
    "depth": {"visibility": "depth"},
    "mesh": {"visibility": "mesh"},
    "mean": {"visibility": "mean"},
    "true-normals": {},
    "no-jitter": {},
    "sigma-0.05": {"sigma": 0.05},
    "sigma-0.1": {"sigma": 0.1},
    "sigma-0.4": {"sigma": 0.4},
    "octaves-0": {"octaves": 0},
    "octaves-1": {"octaves": 1},
}
"""Changes of the field; the other names change the training below."""
CLAIMS = {
    "1": ("keypoints", "z"),
    "2": ("keypoints", "body"),
    "4": ("keypoints", "no-normals"),
    "5": ("keypoints", "depth", "mesh", "mean"),
    "6": ("keypoints", "true-normals"),
    "7": ("keypoints", "no-jitter"),
    "8": ("keypoints", "sigma-0.05", "sigma-0.1", "sigma-0.4", "octaves-0", "octaves-1"),
}
NOISE = (0.0, 0.01, 0.02, 0.05)
"""Metres by which the keypoints of a test are wrong, standard deviation."""
LEVELS = 1

Scores = Dict[str, Dict[str, Dict[str, float]]]
"""Condition -> easy or hard -> mean score by name."""


def trainer_of(variant: str, seed: int, normal_steps: int, steps: int, people: int, threads: int) -> Trainer:
    """A trainer of the preset with one thing changed, set up and not started."""
    torch.set_num_threads(threads)
    config = copy.deepcopy(keypoint_icon_tiny.config)
    config.vis, config.max_num_iterations = "tensorboard", normal_steps + steps
    config.steps_per_eval_image = config.steps_per_eval_all_images = config.steps_per_eval_batch = 0
    config.output_dir, config.timestamp = Path(tempfile.mkdtemp()), "run"
    atexit.register(shutil.rmtree, config.output_dir, ignore_errors=True)
    config.machine.device_type, config.machine.seed = "cpu", seed
    model, manager = config.pipeline.model, config.pipeline.datamanager
    manager.dataparser.people, manager.dataparser.test_people = people, 1
    manager.bodies = variant in ("body", "mesh")
    for name, value in VARIANTS[variant].items():
        setattr(model.field, name, value)
    model.normal_steps = normal_steps
    config.optimizers["sides"]["scheduler"].max_steps = max(normal_steps, 1)
    config.optimizers["field"]["scheduler"].delay = normal_steps
    if variant == "true-normals":
        model.normal_source = "gt"
    if variant == "no-jitter":
        manager.keypoint_noise = 0.0
    config.set_experiment_name()
    torch.manual_seed(seed)
    np.random.seed(seed)
    trainer = config.setup()
    trainer.setup()
    return trainer


def trained(trainer: Trainer) -> Any:
    """Its field after the last step, ready to be used."""
    for step in range(trainer.config.max_num_iterations):
        trainer.pipeline.train()
        trainer.train_iteration(step)
    return trainer.pipeline.eval().model.field


def sides_of(seed: int, steps: int, people: int, threads: int) -> Dict[str, torch.Tensor]:
    """Weights of the networks that draw the sides, from the user's cache or trained now."""
    path = cache_dir() / "claims" / f"icon_sides_{steps}_{people}_{seed}.safetensors"
    if not path.is_file():
        state = trained(trainer_of("keypoints", seed, steps, 0, people, threads)).state_dict()
        write_safetensors({k: v for k, v in state.items() if "_side." in k}, path)
    return read_safetensors(path)[0]


def without_normals(field: Any) -> None:
    """Let the network see flat black where the normals are; the mask it keeps."""
    encode = field.encode

    def blind(photo: Any, sides: Sides) -> Any:
        zero = torch.zeros_like(sides.normals)
        return encode(photo, Sides(zero, zero, sides.back_rgb))

    field.encode = blind


@cache
def unseen(pose: str, count: int) -> List[Tuple[Any, Any, Tuple[np.ndarray, np.ndarray]]]:
    """Scan of one photo, naked body and true surface of people whom no training sees."""
    people = ProceduralPeople(PeopleOptions(cameras=2, pose_strength=POSES[pose]), 1, count)
    scans = ProceduralScans(people, ScanOptions(1, keypoint_icon_tiny.config.pipeline.model.photo_size, 2000))
    found = []
    for index in range(1, 1 + count):
        vertices, faces = people.mesh(index)
        found.append((scans[index], people.body(index), (vertices.numpy(), faces.numpy())))
    return found


@torch.no_grad()
def score(field: Any, noise: float, normals: str, count: int) -> Dict[str, Dict[str, float]]:
    """Mean scores for each kind of pose; people without any surface are counted and left out."""
    result = {}
    for pose in POSES:
        rows: List[Dict[str, float]] = []
        for number, (scan, body, truth) in enumerate(unseen(pose, count)):
            torch.manual_seed(1000 + number)
            lesson: Lesson = gather_lesson([scan], 100, noise, (body,))
            sides = lesson.sides if normals == "true" else field.sides(lesson.photo)
            surface = PhotoSurface(field, field.encode(lesson.photo, sides), LEVELS, 0.5)
            try:
                mesh = surface.mesh()
            except InputError:
                continue
            rows.append(person_scores(mesh.verts, mesh.faces, *truth).as_dict())
        result[pose] = {"without_surface": float(count - len(rows))}
        result[pose] |= {key: float(np.mean([row[key] for row in rows])) for key in (rows[0] if rows else ())}
    return result


def run(variant: str, seed: int, options: argparse.Namespace) -> Scores:
    """One training, scored in all conditions that a claim asks of it."""
    sides = sides_of(seed, options.side_steps, options.people, options.threads)
    trainer = trainer_of(variant, seed, 0, options.steps, options.people, options.threads)
    field = trainer.pipeline.model.field
    field.load_state_dict({**field.state_dict(), **sides})
    if variant == "no-normals":
        without_normals(field)
    trained(trainer)
    noises: Sequence[float] = NOISE if variant in ("keypoints", "no-jitter") else NOISE[:1]
    found = {f"noise {100 * noise:g} cm": score(field, noise, "predicted", options.test_people) for noise in noises}
    if variant in ("keypoints", "true-normals"):
        found["true normals"] = score(field, 0.0, "true", options.test_people)
    return found


def values(runs: Dict[str, Scores], condition: str, measure: str, pose: str) -> Dict[str, float]:
    """A score of each seed; `all` is the mean of both kinds of pose."""
    poses = list(POSES) if pose == "all" else [pose]
    return {
        seed: float(np.mean([found[condition][p][measure] for p in poses]))
        for seed, found in runs.items()
        if condition in found and all(measure in found[condition][p] for p in poses)
    }


def compare(
    claim: str, what: str, ours: Dict[str, float], base: Dict[str, float], unit: str, gate: str = "", most: float = 0.0
) -> List[Row]:
    """A row over the seeds that both have; with a gate, our mean may be `most` times the baseline's."""
    seeds = sorted(ours.keys() & base.keys())
    if not seeds:
        return []
    one, other = (np.array([x[seed] for seed in seeds]) for x in (ours, base))
    passed = bool(one.mean() < most * other.mean()) if gate else None
    means = (round(float(one.mean()), 3), round(float(other.mean()), 3))
    return [Row(claim, what, *means, unit, spread(list(one - other)), len(seeds), gate or None, passed)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", nargs="+", choices=list(CLAIMS), default=list(CLAIMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--test-people", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows-only", action="store_true")
    options = parser.parse_args()

    store = ROOT / "benchmarks" / "runs" / f"keypoint_icon_claims_{options.steps}.json"
    settings = {name: getattr(options, name) for name in ("side_steps", "steps", "people", "test_people")}
    runs: Dict[str, Dict[str, Scores]] = {variant: {} for variant in VARIANTS}
    wanted = list(dict.fromkeys(variant for claim in options.claims for variant in CLAIMS[claim]))
    for seed in range(options.seeds):
        for variant in wanted:
            key = f"{variant}/{seed}"
            if options.rows_only and key not in kept(store):
                continue
            found = cached(store, key, partial(run, variant, seed, options), settings)
            runs[variant][str(seed)] = {k: v for k, v in found.items() if k not in ("machine", "settings")}
            first = runs[variant][str(seed)]["noise 0 cm"]
            print(key, {pose: round(x.get("chamfer_cm", float("nan")), 2) for pose, x in first.items()}, flush=True)
    rows = [row for claim in options.claims for row in ROWS[claim](runs, f"{options.steps} steps")]
    print(write_rows("keypoint_icon_claims", rows) if rows else "no run is kept: leave --rows-only out")


QUIET = "noise 0 cm"
MEASURES = (("chamfer_cm", "cm"), ("p2s_cm", "cm"), ("nc", ""))


def against(claim: str, ours: str, other: str, text: str, gates: Dict[Tuple[str, str], Tuple[str, float]]) -> Any:
    """Rows of two variants, one for each measure, and the distance for each kind of pose; some have a gate."""

    def rows(runs: Dict[str, Dict[str, Scores]], setting: str) -> List[Row]:
        found = []
        for measure, unit in MEASURES:
            for pose in ("all", *POSES) if measure == "chamfer_cm" else ("all",):
                pair = (values(runs[name], QUIET, measure, pose) for name in (ours, other))
                gate, most = gates.get((measure, pose), ("", 0.0))
                what = f"{measure}, {pose} poses: {text}, {setting}"
                found += compare(f"keypoint-icon/{claim}", what, *pair, unit, gate, most)
        return found

    return rows


def within_a_fifth(runs: Dict[str, Dict[str, Scores]], setting: str) -> List[Row]:
    """Claim 2: the chamfer distance may differ by a fifth either way."""
    rows = against("2", "keypoints", "body", "keypoints against ICON's body features", {})(runs, setting)
    for row in rows:
        if row.what.startswith("chamfer_cm, all") and row.value is not None and row.baseline:
            row.gate, row.passed = "within 20 %", abs(row.value / row.baseline - 1) <= 0.2
    return rows


def sides(runs: Dict[str, Dict[str, Scores]], setting: str) -> List[Row]:
    """Claim 5: one side chosen for each point, against the mean of both; and both, as the preset has them."""
    rows = []
    for name, text in (("depth", "side chosen by depth"), ("mesh", "side chosen by mesh"), ("keypoints", "both sides")):
        gates = {("nc", "all"): ("< baseline", 1.0)} if name != "keypoints" else {}
        rows += against("5", name, "mean", f"{text} against the mean of both", gates)(runs, setting)
    return rows


def predicted_normals(runs: Dict[str, Dict[str, Scores]], setting: str) -> List[Row]:
    """Claim 6: what true normals would gain, and that training on drawn ones, too, makes this less."""
    rows, gaps = [], []
    for name, text in (("keypoints", "trained on true and drawn normals"), ("true-normals", "trained on true normals")):
        for measure, unit in MEASURES:
            drawn, true = (values(runs[name], condition, measure, "all") for condition in (QUIET, "true normals"))
            rows += compare("keypoint-icon/6", f"{measure}, drawn against true: {text}, {setting}", drawn, true, unit)
            if measure == "nc":
                gaps.append({seed: drawn[seed] - true[seed] for seed in drawn.keys() & true.keys()})
    what = f"nc lost with drawn normals: trained on both against true ones alone, {setting}"
    return rows + compare("keypoint-icon/6", what, *gaps, "", "< baseline", 1.0)


def wrong_keypoints(runs: Dict[str, Dict[str, Scores]], setting: str) -> List[Row]:
    """Claim 7: wrong keypoints, with jitter in training against without."""
    rows = []
    for noise in NOISE:
        condition = f"noise {100 * noise:g} cm"
        pair = (values(runs[name], condition, "chamfer_cm", "all") for name in ("keypoints", "no-jitter"))
        gate = ("< baseline", 1.0) if noise == NOISE[-1] else ("", 0.0)
        what = f"chamfer_cm, keypoints wrong by {100 * noise:g} cm: jitter against none in training, {setting}"
        rows += compare("keypoint-icon/7", what, *pair, "cm", *gate)
    return rows


def reach(runs: Dict[str, Dict[str, Scores]], setting: str) -> List[Row]:
    """Claim 8: the preset's 0.2 m and frequencies against others; the plan expects 0.1 or 0.2 m to be best."""
    rows = []
    for name in CLAIMS["8"][1:]:
        pair = (values(runs[n], QUIET, "chamfer_cm", "all") for n in ("keypoints", name))
        gate = ("< baseline", 1.0) if name in ("sigma-0.05", "sigma-0.4") else ("", 0.0)
        what = f"chamfer_cm: the preset against {name.replace('-', ' ')}, {setting}"
        rows += compare("keypoint-icon/8", what, *pair, "cm", *gate)
    return rows


ROWS = {
    "1": against("1", "keypoints", "z", "keypoints against depth alone", {("chamfer_cm", "all"): ("< 0.85 x", 0.85)}),
    "2": within_a_fifth,
    "4": against("4", "keypoints", "no-normals", "with normals against without",
                 {("chamfer_cm", "all"): ("< baseline", 1.0), ("nc", "all"): ("< baseline", 1.0)}),
    "5": sides,
    "6": predicted_normals,
    "7": wrong_keypoints,
    "8": reach,
}  # fmt: skip


if __name__ == "__main__":
    main()
