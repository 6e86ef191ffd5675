"""People whom the network has never seen, from one to four pictures, against what needs no network; how it bears wrong
keypoints and a bad mask; and what it costs (claims 6, 8, 9, 10 and 11).

Run from the repository's root:  python -m benchmarks.keypoint_nerf_people [--run FOLDER]
Without a run, the weights that come with the suite are measured. Scores are kept in benchmarks/runs as they are found:
a stopped benchmark goes on where it was. Where only the person's own pixels count, only their rays are rendered.
"""

import argparse
import copy
import hashlib
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from nerfstudio.configs.method_configs import all_methods

from benchmarks._harness import ROOT, Row, cached, interleaved_seconds, timed, write_rows
from benchmarks._people import (
    Change,
    changed,
    eroded,
    exchanged,
    noisy,
    person_psnr,
    spread_over,
    unchanged,
    wanted_camera,
)
from nerfstudio_ext.engine.metrics import psnr, ssim
from nerfstudio_ext.engine.runs import open_run
from nerfstudio_ext.engine.weights import read_safetensors
from nerfstudio_ext.fields.keypoint_nerf_field import DEFAULT_WEIGHTS
from nerfstudio_ext.human.body_grid import box_span
from nerfstudio_ext.human.keypoint_encoding import keypoint_box
from nerfstudio_ext.human.subject import SourceViews, Subject
from nerfstudio_ext.human.view_sampling import HullMode, dilated, sample_maps, see
from nerfstudio_ext.procedural.people import PeopleOptions, ProceduralPeople

HULL_SAMPLES = 128
ORDER = (0, 5, 2, 7)
"""The first one, two, three and four of these views are sources; three of them are those of the preset."""
NOISE = (0, 1, 2, 5, 10)
"""Centimetres."""
AROUND = 0.06
"""Share of the picture's width around the person that counts where views are counted: one mask alone carves a cone,
which covers the person whole and more."""
ERODED = 0.03
"""Share of the picture's width that the bad mask loses along its outline: 10 pixels of 320."""
MODES: Tuple[HullMode, ...] = ("all", "majority")
FIT_STEPS = 200
SMALL = 32
"""Pixels along a side of what a viewer asks for while it is moved."""
MEASURES = (("PSNR of the person", "dB"), ("PSNR of the box", "dB"), ("SSIM of the box", ""))


def load(run: Optional[Path]) -> Any:
    """Pipeline of a run, or of the tiny preset with the weights that come with the suite."""
    if run is not None:
        return open_run(run, "test")[1]
    config = copy.deepcopy(all_methods["keypoint-nerf-tiny"].pipeline)
    pipeline = config.setup(device="cpu", test_mode="test")
    pipeline.model.field.load_state_dict(read_safetensors(DEFAULT_WEIGHTS)[0])
    return pipeline.eval()


def hull_picture(subject: Subject, sources: Sequence[int], rays: Any) -> torch.Tensor:
    """First point of each ray inside all masks, in the colours of the views, the more alike in direction the more."""
    views = SourceViews.of(subject, sources, torch.device("cpu"))
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    near, far = box_span(origins, directions, keypoint_box(views.keypoints))
    steps = torch.linspace(0, 1, HULL_SAMPLES)
    depths = near[:, None] + (far - near).clamp(min=0)[:, None] * steps
    points = (origins[:, None] + depths[..., None] * directions[:, None]).reshape(-1, 3)
    inside = see(points, views, dilated(views.mask, 0.01), "all").valid.any(0).view(depths.shape)
    first = inside.float().argmax(1)
    hit = inside.any(1)
    surface = points.view(*depths.shape, 3)[torch.arange(len(first)), first]
    height, width = views.rgb.shape[-2:]
    colours = sample_maps(views.rgb, views.project(surface)[0], height, width)
    rotations, shifts = views.world_to_camera[..., :3], views.world_to_camera[..., 3:]
    centres = -(rotations.transpose(1, 2) @ shifts)[..., 0]
    seen = torch.nn.functional.normalize(surface - centres[:, None], dim=-1)
    share = torch.softmax(10 * (seen * directions).sum(-1), dim=0)[..., None]
    return ((share * colours).sum(0) * hit[:, None]).view(*rays.origins.shape)


def scores(picture: torch.Tensor, batch: Dict[str, torch.Tensor]) -> Tuple[float, float, float]:
    """PSNR of the person's own pixels, PSNR and SSIM of the rectangle around the box."""
    wanted, box = batch["image"], batch["box_mask"][..., 0]
    rows, columns = torch.nonzero(box.any(1))[:, 0], torch.nonzero(box.any(0))[:, 0]
    window = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    pair = [x[window].permute(2, 0, 1)[None] for x in (picture, wanted)]
    return person_psnr(picture, wanted, batch["fg_mask"]), float(psnr(*pair)), float(ssim(*pair))


Target = Tuple[int, int, int]
"""Position in the test set, person and camera."""


def targets(pipeline: Any, people: int, pictures: int) -> List[Target]:
    """Pictures that are compared, of cameras that are never a source; which ones, goes round from person to person, so
    that wanted views are near and far from the sources."""
    views = pipeline.datamanager.eval_dataset.metadata["views"]
    chosen = []
    for number, index in enumerate(list(dict.fromkeys(index for index, _ in views))[:people]):
        free = [p for p, (who, camera) in enumerate(views) if who == index and camera not in ORDER]
        start = number % len(free)
        chosen += [(p, *views[p]) for p in spread_over([*free[start:], *free[:start]], pictures)]
    return chosen


@torch.no_grad()
def of_persons(
    pipeline: Any,
    chosen: Sequence[Target],
    sources: Sequence[int],
    change: Change = unchanged,
    hull: HullMode = "all",
    around: float = 0.0,
) -> List[float]:
    """PSNR of the person in each picture, on demand with some room around as a share of the width; only the rays that
    see it are rendered."""
    model, dataset, found = pipeline.model, pipeline.datamanager.eval_dataset, []
    before, model.field.config.hull = model.field.config.hull, hull
    with changed(model, change):
        for position, _, _ in chosen:
            batch = dataset[position]
            where = dilated(batch["fg_mask"][None, None, ..., 0], around)[0, 0] > 0.5
            camera = wanted_camera(dataset.cameras[position : position + 1], sources)
            rays = camera.generate_rays(camera_indices=0, keep_shape=True)[where]
            picture = model(rays)["rgb"].cpu()
            found.append(person_psnr(picture, batch["image"][where], torch.ones(len(picture), 1)))
    model.field.config.hull = before
    return found


@torch.no_grad()
def whole_pictures(pipeline: Any, chosen: Sequence[Target], sources: Sequence[int]) -> Dict[str, List]:
    """Scores of whole pictures: ours, and what needs no network."""
    model, dataset = pipeline.model, pipeline.datamanager.eval_dataset
    found: Dict[str, List] = {name: [] for name in ("ours", "mean of the sources", "nearest source", "visual hull")}
    for position, index, camera in chosen:
        subject, batch = dataset.store.subject(index), dataset[position]
        view = wanted_camera(dataset.cameras[position : position + 1], sources)
        places, pictures = subject.poses[..., 3], subject.rgb.float() / 255
        nearest = min(sources, key=lambda k: float((places[k] - places[camera]).norm()))
        made = {
            "ours": model.get_outputs_for_camera(view)["rgb"].cpu(),
            "mean of the sources": pictures[list(sources)].mean(0),
            "nearest source": pictures[nearest],
            "visual hull": hull_picture(subject, sources, view.generate_rays(camera_indices=0, keep_shape=True)),
        }
        for name, picture in made.items():
            found[name].append(scores(picture, batch))
    return found


def fitted(pipeline: Any, chosen: Sequence[Target], sources: Sequence[int], steps: int) -> Dict[str, List[float]]:
    """PSNR of one person before and after the network was trained further on that person alone, the compared pictures
    among its targets: what no network that has never seen them can be expected to reach."""
    model, manager = pipeline.model, pipeline.datamanager
    dataset, person = manager.eval_dataset, chosen[0][1]
    own = [target for target in chosen if target[1] == person]
    before, weights = of_persons(pipeline, own, sources), copy.deepcopy(model.state_dict())
    dropout, model.config.view_dropout = model.config.view_dropout, 0.0
    positions = [p for p, (index, _) in enumerate(dataset.metadata["views"]) if index == person]
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    torch.manual_seed(0)
    model.train()
    for step in range(steps):
        rays, batch = manager._patch(dataset, manager.eval_ray_generator, positions[step % len(positions)])
        rays.metadata["sources"] = torch.tensor([sources]).expand(len(rays), -1)
        optimizer.zero_grad()
        torch.stack(list(model.get_loss_dict(model(rays), batch).values())).sum().backward()
        optimizer.step()
    model.eval()
    after = of_persons(pipeline, own, sources)
    model.config.view_dropout = dropout
    model.load_state_dict(weights)
    return {"before": before, "after": after}


def speed(pipeline: Any, repeats: int) -> List[Row]:
    """Seconds and rates of what a user waits for."""
    model, dataset = pipeline.model, pipeline.datamanager.eval_dataset
    full = dataset.cameras[:1]
    side = int(full.width)

    def sized(pixels: int) -> Any:
        camera = copy.deepcopy(full)
        camera.rescale_output_resolution(scaling_factor=pixels / side)
        return camera

    def render(view: Any, keep: bool, hull: HullMode = "all") -> Callable[[], float]:
        def action() -> None:
            if not keep:
                model._encoded.clear()
            before, model.field.config.hull = model.field.config.hull, hull
            model.get_outputs_for_camera(view)
            model.field.config.hull = before

        return timed(action)

    small = sized(SMALL)
    actions = {
        "small kept": render(small, True),
        "small anew": render(small, False),
        "full kept": render(full, True),
        "full anew": render(full, False),
        "no hull": render(small, True, "off"),
    }
    median = {name: float(np.median(times)) for name, times in interleaved_seconds(actions, repeats, 1).items()}
    seconds = {name: round(value, 3) for name, value in median.items()}
    rays, size = SMALL**2, 256
    large = round(render(sized(size), False)(), 2)
    cache, pair = "keypoint-nerf/speed/cache", "picture; baseline encodes the sources anew"
    bare, pruned = median["no hull"], median["small kept"]
    return [
        Row(f"{cache}-small", f"{SMALL}x{SMALL} {pair}", seconds["small kept"], seconds["small anew"], "s", None, 1,
            None, None),
        Row(f"{cache}-full", f"{side}x{side} {pair}", seconds["full kept"], seconds["full anew"], "s", None, 1, None,
            None),
        Row("keypoint-nerf/speed/hull", "rays of a small picture per second, only points inside the hull decoded; "
            "baseline: --pipeline.model.field.hull off", round(rays / pruned), round(rays / bare), "rays/s", None, 1,
            "> baseline", pruned < bare),
        Row("keypoint-nerf/speed/picture", f"{size}x{size} picture of somebody new, encoders included", large, None,
            "s", None, 1, "< 8 s", large < 8),
    ]  # fmt: skip


def training_step(repeats: int) -> Row:
    """Seconds of one step of the tiny preset, people already drawn."""
    config: Any = copy.deepcopy(all_methods["keypoint-nerf-tiny"])
    config.vis, config.output_dir, config.timestamp = "tensorboard", Path(tempfile.mkdtemp()), "run"
    config.machine.device_type = "cpu"
    config.pipeline.datamanager.dataparser.people = 2
    config.set_experiment_name()
    trainer = config.setup()
    trainer.setup()
    trainer.pipeline.train()
    action = {"step": timed(lambda: trainer.train_iteration(0))}
    seconds = float(np.median(interleaved_seconds(action, max(repeats, 5), 3)["step"]))
    return Row("keypoint-nerf/speed/step", "training step of keypoint-nerf-tiny", round(seconds, 3), None, "s", None, 1,
               None, None)  # fmt: skip


def drawing(count: int) -> Row:
    """People that are drawn per minute, none of them kept from before."""
    people = ProceduralPeople(PeopleOptions(), count + 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        people._folder = Path(folder)
        people.subject(0)  # the body model is read once
        start = time.perf_counter()
        for index in range(count):
            people.subject(index + 1)
        rate = 60 * count / (time.perf_counter() - start)
    options = people.options
    what = f"people drawn per minute, {options.cameras} views of {options.size} pixels each"
    return Row("keypoint-nerf/speed/drawing", what, round(rate, 1), None, "/min", None, 1, None, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=1)
    parser.add_argument("--fit-steps", type=int, default=FIT_STEPS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = load(arguments.run)
    chosen = targets(pipeline, arguments.people, arguments.pictures)
    store = pipeline.datamanager.eval_dataset.store
    weights = hashlib.sha256()
    for value in pipeline.model.field.state_dict().values():
        weights.update(value.cpu().numpy().tobytes())
    settings = {"weights": weights.hexdigest()[:16], "pictures": [list(target) for target in chosen],
                "fit": arguments.fit_steps}  # fmt: skip
    path = ROOT / "benchmarks" / "runs" / "keypoint_nerf_people.json"

    def kept_scores(name: str, compute: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        found = cached(path, name, lambda: {"scores": compute()}, settings)["scores"]
        print(name, f"{time.perf_counter() - start:.0f} s", flush=True)
        return found

    def people_psnr(
        name: str, change: Change = unchanged, hull: HullMode = "all", count: int = 3, around: float = 0.0
    ) -> np.ndarray:
        task = partial(of_persons, pipeline, chosen, ORDER[:count], change, hull, around)
        return np.array(kept_scores(name, task))

    first = min(index for _, index, _ in chosen)
    pixels = round(ERODED * int(pipeline.datamanager.eval_dataset.cameras.width[0]))
    whole = kept_scores("whole", lambda: whole_pictures(pipeline, chosen, ORDER[:3]))
    views = [people_psnr(f"{count} views", count=count, around=AROUND) for count in (1, 2, 3, 4)]
    own = people_psnr("ours")
    noise = [own if cm == 0 else people_psnr(f"{cm} cm", noisy(cm / 100)) for cm in NOISE]
    swapped = people_psnr("another person", exchanged(store, first))
    masks: Dict[Tuple[HullMode, bool], np.ndarray] = {(mode, bad): own if mode == "all" and not bad else
             people_psnr(f"{mode} {bad}", eroded(ORDER[0], pixels) if bad else unchanged, mode)
             for mode in MODES for bad in (False, True)}  # fmt: skip
    fit = {k: np.array(v) for k, v in
           kept_scores("fit", lambda: fitted(pipeline, chosen, ORDER[:3], arguments.fit_steps)).items()}  # fmt: skip
    rows = [
        *anchor_rows({name: np.array(values) for name, values in whole.items()}),
        *(_row("6", f"PSNR of the person and the surroundings from {n + 1} views; baseline: {n}", views[n],
               views[n - 1], "> baseline", views[n].mean() > views[n - 1].mean()) for n in (1, 2, 3)),
        _row("8", "PSNR of the person; baseline: another person's pictures", own, swapped, ">= 3 dB",
             (own - swapped).mean() >= 3),
        *(_row("9", f"PSNR of the person, keypoints off by {cm} cm; baseline: exact", noise[k], noise[0],
               f"<= that at {NOISE[k - 1]} cm", noise[k].mean() <= noise[k - 1].mean())
          for k, cm in enumerate(NOISE) if k),
        *mask_rows(masks, pixels),
        _row("fit", f"PSNR of one person after {arguments.fit_steps} steps on that person alone, the compared "
             "picture among the targets; baseline: never seen", fit["after"], fit["before"], None, None),
    ]  # fmt: skip
    for row in rows:
        print(row.claim, row.what, row.value, row.baseline, row.passed)
    costs = [*speed(pipeline, arguments.repeats), training_step(arguments.repeats), drawing(2)]
    write_rows("keypoint_nerf_people", [*rows, *costs])


def anchor_rows(whole: Dict[str, np.ndarray]) -> List[Row]:
    """Claim 10: ours against what needs no network, in whole pictures."""
    own, rows = whole.pop("ours"), []
    for name, values in whole.items():
        for k, (what, unit) in enumerate(MEASURES):
            gate, passed = ("> baseline", own[:, 0].mean() > values[:, 0].mean()) if k == 0 else (None, None)
            text = f"{what} of {len(own)} unseen people's pictures; baseline: {name}"
            rows.append(_row("10", text, own[:, k], values[:, k], gate, passed, unit))
    return rows


def mask_rows(masks: Dict[Tuple[HullMode, bool], np.ndarray], pixels: int) -> List[Row]:
    """Claim 11: what one bad mask costs, in two modes of the hull."""
    rows, losses = [], {}
    for mode in MODES:
        losses[mode] = masks[mode, False].mean() - masks[mode, True].mean()
        text = f"PSNR of the person, hull {mode}, one mask eroded by {pixels} pixels; baseline: exact masks"
        gate, passed = (None, None) if mode == "all" else ("loses less than all", losses[mode] < losses["all"])
        rows.append(_row("11", text, masks[mode, True], masks[mode, False], gate, passed))
    return rows


def _row(
    claim: str, what: str, own: np.ndarray, base: np.ndarray, gate: Optional[str], passed: Optional[Any],
    unit: str = "dB"
) -> Row:  # fmt: skip
    """Means over pictures; the spread is that of the differences."""
    values = (round(float(own.mean()), 3), round(float(base.mean()), 3))
    apart = round(float((own - base).std()), 3)
    return Row(f"keypoint-nerf/{claim}", what, *values, unit, apart, 1, gate, None if passed is None else bool(passed))


if __name__ == "__main__":
    main()
