"""People whom the network has never seen, from three pictures, against what needs no network (claims 6, 8 and 10), and
what keeping the feature maps is worth.

Run from the repository's root:  python -m benchmarks.keypoint_nerf_people [--run FOLDER]
Without a run, the weights that come with the suite are measured.
"""

import argparse
import copy
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from nerfstudio.configs.method_configs import all_methods

from benchmarks._harness import Row, interleaved_seconds, write_rows
from nerfstudio_ext.engine.metrics import psnr, ssim
from nerfstudio_ext.engine.runs import open_run
from nerfstudio_ext.engine.weights import read_safetensors
from nerfstudio_ext.fields.keypoint_nerf_field import DEFAULT_WEIGHTS, EncodedViews
from nerfstudio_ext.human.body_grid import box_span
from nerfstudio_ext.human.keypoint_encoding import keypoint_box
from nerfstudio_ext.human.subject import SourceViews, Subject
from nerfstudio_ext.human.view_sampling import dilated, sample_maps, see
from nerfstudio_ext.models.keypoint_nerf import KeypointNeRFModel

HULL_SAMPLES = 128


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
    wanted, mask, box = batch["image"], batch["fg_mask"][..., 0] > 0.5, batch["box_mask"][..., 0]
    rows, columns = torch.nonzero(box.any(1))[:, 0], torch.nonzero(box.any(0))[:, 0]
    window = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    pair = [x[window].permute(2, 0, 1)[None] for x in (picture, wanted)]
    error = float((picture - wanted)[mask].square().mean())
    return -10 * float(np.log10(error + 1e-9)), float(psnr(*pair)), float(ssim(*pair))


Renderer = Callable[[Any, Subject, Tuple[int, ...], int], torch.Tensor]


def measure(pipeline: Any, renderers: Dict[str, Renderer]) -> Dict[str, np.ndarray]:
    """Scores [pictures, 3] of every way to make the held-out pictures."""
    dataset, found = pipeline.datamanager.eval_dataset, {name: [] for name in renderers}
    for position, (index, camera) in enumerate(dataset.metadata["views"]):
        subject, sources = dataset.store.subject(index), dataset.metadata["sources"][index]
        view, batch = dataset.cameras[position : position + 1], dataset[position]
        for name, render in renderers.items():
            found[name].append(scores(render(view, subject, sources, camera), batch))
    return {name: np.array(values) for name, values in found.items()}


def anchors() -> Dict[str, Renderer]:
    """What needs no network."""

    def picture(subject: Subject, view: int) -> torch.Tensor:
        return subject.rgb[view].float() / 255

    def mean(view: Any, subject: Subject, sources: Tuple[int, ...], camera: int) -> torch.Tensor:
        return torch.stack([picture(subject, k) for k in sources]).mean(0)

    def nearest(view: Any, subject: Subject, sources: Tuple[int, ...], camera: int) -> torch.Tensor:
        places = subject.poses[..., 3]
        return picture(subject, min(sources, key=lambda k: float((places[k] - places[camera]).norm())))

    def hull(view: Any, subject: Subject, sources: Tuple[int, ...], camera: int) -> torch.Tensor:
        return hull_picture(subject, sources, view.generate_rays(camera_indices=0, keep_shape=True))

    return {"mean of the sources": mean, "nearest source": nearest, "visual hull": hull}


def ours(model: KeypointNeRFModel, sources: Optional[Tuple[int, ...]] = None, other: int = 0) -> Renderer:
    """The network's picture, on demand from other views, or from the pictures of somebody else."""

    def render(view: Any, subject: Subject, own: Tuple[int, ...], camera: int) -> torch.Tensor:
        view = copy.deepcopy(view)
        if sources is not None:
            # Views beside the usual ones; the one that is asked for is never among them.
            chosen = [k for k in (*own, *sources) if k != camera][: len(sources)]
            view.metadata["sources"] = torch.tensor([chosen])
        if other == 0:
            return model.get_outputs_for_camera(view)["rgb"]
        who, views = int(view.metadata["subject"]), tuple(view.metadata["sources"][0].tolist())
        mixed = exchanged(model, who, who + other if who + other < len(model._store) else who - other, views)
        encode, model.encode = model.encode, lambda _: mixed
        try:
            return model.get_outputs_for_camera(view)["rgb"]
        finally:
            model.encode = encode

    return render


@torch.no_grad()
def exchanged(model: KeypointNeRFModel, who: int, other: int, views: Tuple[int, ...]) -> EncodedViews:
    """A person's cameras and keypoints with the pictures and masks of somebody else."""
    own, foreign = (SourceViews.of(model._store.subject(k), views, model.device) for k in (who, other))
    return model.field.encode(
        SourceViews(foreign.rgb, foreign.mask, own.world_to_camera, own.intrinsics, own.keypoints)
    )


def cached_speed(pipeline: Any, repeats: int) -> List[Row]:
    """Seconds of the encoders alone, and of a small picture as the viewer asks for, with and without kept maps."""
    model, dataset = pipeline.model, pipeline.datamanager.eval_dataset
    small = copy.deepcopy(dataset.cameras[:1])
    small.rescale_output_resolution(scaling_factor=32 / float(small.width))
    full = dataset.cameras[:1]

    def render(view: Any, keep: bool) -> Callable[[], Any]:
        def action() -> None:
            if not keep:
                model._encoded.clear()
            model.get_outputs_for_camera(view)

        return action

    actions = {f"{size} {kind}": render(view, kind == "kept") for size, view in (("small", small), ("full", full))
               for kind in ("kept", "encoded anew")}  # fmt: skip
    seconds = {name: float(np.median(times)) for name, times in interleaved_seconds(actions, repeats, 1).items()}
    side = int(full.width)
    return [
        Row("keypoint-nerf/speed/cache-small", "32x32 picture, seconds; baseline encodes anew", seconds["small kept"],
            seconds["small encoded anew"], "s", None, 1, None, None),
        Row("keypoint-nerf/speed/cache-full", f"{side}x{side} picture, seconds; baseline encodes anew",
            seconds["full kept"], seconds["full encoded anew"], "s", None, 1, None, None),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = load(arguments.run)
    model = pipeline.model
    network = {
        "ours": ours(model),
        "two views": ours(model, (0, 4)),
        "four views": ours(model, (0, 2, 5, 7)),
        "another person's pictures": ours(model, other=1),
    }
    found = measure(pipeline, {**network, **anchors()})
    for name, values in found.items():
        print(name, values.mean(0).round(3))
    rows, count = [], len(found["ours"])
    own = found["ours"]
    for name in anchors():
        for k, (what, unit) in enumerate(
            (("PSNR of the person", "dB"), ("PSNR of the box", "dB"), ("SSIM of the box", ""))
        ):
            gain = own[:, k] - found[name][:, k]
            gate, passed = ("> 0 dB", bool(gain.mean() > 0)) if k == 0 else (None, None)
            rows.append(Row("keypoint-nerf/10", f"{what}, ours against {name}, {count} pictures of unseen people",
                            round(float(own[:, k].mean()), 3), round(float(found[name][:, k].mean()), 3), unit,
                            round(float(gain.std()), 3), 1, gate, passed))  # fmt: skip
    for name, claim, better in (("two views", 6, "three"), ("four views", 6, "four")):
        pair = (own, found[name]) if better == "three" else (found[name], own)
        values = [round(float(x[:, 0].mean()), 3) for x in pair]
        what = f"PSNR of the person, {better} views against {'two' if better == 'three' else 'three'}"
        rows.append(Row(f"keypoint-nerf/{claim}", what, *values, "dB", None, 1, "> 0 dB", values[0] > values[1]))
    values = [round(float(x[:, 0].mean()), 3) for x in (own, found["another person's pictures"])]
    rows.append(Row("keypoint-nerf/8", "PSNR of the person, own pictures against another person's", *values, "dB", None,
                    1, ">= 3 dB", values[0] - values[1] >= 3))  # fmt: skip
    write_rows("keypoint_nerf_people", [*rows, *cached_speed(pipeline, arguments.repeats)])


if __name__ == "__main__":
    main()
