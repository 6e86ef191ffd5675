"""Trainings that `neural_body_claims` compares: the small preset on the drawn person, and what is left out of it.

The drawn person is scored on the cameras 1 and 4 of six, which no run is trained on.
"""

import atexit
import copy
import json
import math
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.trainer import Trainer
from torch import Tensor, nn

from dataparsers.zju_mocap import ZjuMocapDataParserConfig
from method_configs.neural_body import neural_body_tiny
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.body_mesh import body_mesh
from nerfstudio_ext.export.human_scene import write_human_scene
from nerfstudio_ext.human.body_grid import BodyFrame
from nerfstudio_ext.human.body_model import anny_body
from nerfstudio_ext.human.sparse_conv import build_tables, sample, scatter_mean
from nerfstudio_ext.procedural.human import PHENOTYPE, HumanSceneOptions, draw_motion, human_scene
from nerfstudio_ext.procedural.new_poses import stride
from nerfstudio_ext.surface.metrics import compare_surfaces, sample_mesh
from nerfstudio_ext.surface.sdf_network import encode_frequencies, encoded_dims

CAMERAS, TURN, GAIN = 6, 180.0, 0.3
SCORED_CAMERAS = (1, 4)
OCTAVES = 6
NOVEL_SHARE = 0.25
"""Share of the frames that runs of claim 5 hold out, the last ones."""
WALK_FRAMES = 4
SURFACE_POINTS = 5000
MESH_CELLS = 72
SURFACE_DENSITY = 10.0

ONE, TWO, FOUR = "0", "0,3", "0,2,3,5"


def without_body(model: Any) -> None:
    """A radiance field of position and frame: the same networks, no codes, no pruning by the body."""
    field = model.field
    numbers = {id(model._frames[number]): number for number in range(model.num_frames)}
    inputs = encoded_dims(3, OCTAVES) + field.config.latent_width
    field.trunk[0] = nn.Linear(inputs, field.config.width)

    def hidden(points: Tensor, frame: BodyFrame, volumes: List[Tensor]) -> Tensor:
        latent = volumes[0].expand(len(points), -1)
        return field.trunk(torch.cat([encode_frequencies(points, OCTAVES), latent], dim=-1))

    field.hidden = hidden
    field.volumes = lambda frame: [model.latent_of(numbers[id(frame)])]
    without_pruning(model)


def without_pruning(model: Any) -> None:
    """Samples are decoded in the whole grid of a frame."""
    for number in range(model.num_frames):
        model._frames[number].near_body[1:-1, 1:-1, 1:-1] = True


def without_tower(model: Any) -> None:
    """The codes themselves, looked up in the finest grid and zero off the surface, in the place of diffused ones."""
    field = model.field
    grids = {}
    for number in range(model.num_frames):
        frame = model._frames[number]
        coords = frame.voxels(model.motion.vertices[number]).round().long()
        shape = tuple(2 * (n - 2) for n in frame.tables.rows[1].shape)
        grids[id(frame)] = build_tables(coords, shape, levels=1).rows[0]
    field.trunk[0] = nn.Linear(field.config.code_width, field.config.width)
    field.volumes = lambda frame: [scatter_mean(field.codes, frame.tables.site_of_point, frame.tables.counts[0])]
    field.hidden = lambda points, frame, volumes: field.trunk(
        sample(volumes[0], grids[id(frame)], frame.voxels(points))
    )


def one_level(model: Any) -> None:
    """Only the finest of the four levels is read."""
    field = model.field
    field.trunk[0] = nn.Linear(field.config.channels[0], field.config.width)
    field.hidden = lambda points, frame, volumes: field.trunk(
        sample(volumes[0], frame.tables.rows[1], frame.voxels(points) / 2)
    )


def without_latent(model: Any) -> None:
    """All frames share one latent code, which stays zero."""
    model.field.latents.data.zero_()
    model.field.latents.requires_grad_(False)


def official_levels(model: Any) -> None:
    """Levels are read where the published code reads them."""
    model.field.config.level_mapping = "official"


def colours_in_body_frame(model: Any) -> None:
    """Colours depend on positions and directions in the body's frame, not the world's."""
    model.config.colour_frame = "body"


class Variant:
    """What one run differs in.

    Args:
        cameras: Trained on.
        change: Of the model, before training.
        frames: Of the capture; none: all.
        gain: Exposure of the capture.
        hold_out: Whether the last frames are held out as novel poses.
    """

    def __init__(
        self,
        cameras: str = FOUR,
        change: Optional[Callable[[Any], None]] = None,
        frames: Optional[int] = None,
        gain: float = 0.0,
        hold_out: bool = False,
    ) -> None:
        self.cameras, self.change, self.frames, self.gain, self.hold_out = cameras, change, frames, gain, hold_out


VARIANTS: Dict[str, Variant] = {
    "one-frame": Variant(TWO, frames=1),
    "two-cameras": Variant(TWO),
    "codes": Variant(),
    "no-body": Variant(change=without_body),
    "no-tower": Variant(change=without_tower),
    "gain": Variant(gain=GAIN),
    "gain-no-latent": Variant(change=without_latent, gain=GAIN),
    "no-latent": Variant(change=without_latent),
    "no-pruning": Variant(change=without_pruning),
    "one-camera": Variant(ONE),
    "held-out": Variant(hold_out=True),
    "held-out-no-body": Variant(change=without_body, hold_out=True),
    "held-out-body-frame": Variant(change=colours_in_body_frame, hold_out=True),
    "one-level": Variant(change=one_level),
    "official-levels": Variant(change=official_levels),
    "one-frame-four-cameras": Variant(frames=1),
}


def preset_numbers() -> Dict[str, Any]:
    """What the small preset says, by name, as JSON holds it; in how many chunks it renders decides no result."""
    config = neural_body_tiny.config
    model, optimizer = config.pipeline.model, config.optimizers["field"]
    parts = {"model": model, "field": model.field, **optimizer}
    numbers = {f"{part}.{name}": value for part, found in parts.items() for name, value in vars(found).items()
               if isinstance(value, (bool, int, float, str, tuple))}  # fmt: skip
    del numbers["model.eval_num_rays_per_chunk"]
    return json.loads(json.dumps(numbers))


@cache
def capture(frames: int, size: int, gain: float) -> Path:
    """The drawn person as files; gone when the process ends."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_human_scene(human_scene(HumanSceneOptions(frames, CAMERAS, size, TURN, gain)), folder / "person")
    return folder / "person"


def drawn(variant: Variant, frames: int, size: int) -> ZjuMocapDataParserConfig:
    """The drawn person as a variant sees it."""
    return ZjuMocapDataParserConfig(
        data=capture(frames, size, variant.gain), train_cameras=variant.cameras, frames=variant.frames,
        novel_frames=round(NOVEL_SHARE * frames) if variant.hold_out else 0, eval_step=1,
    )  # fmt: skip


def trainer_for(variant: Variant, seed: int, steps: int, parser: ZjuMocapDataParserConfig, band: int = 0) -> Trainer:
    """A trainer of a variant, set up and not started; its folder goes when the process ends."""
    config = copy.deepcopy(neural_body_tiny.config)
    config.vis, config.max_num_iterations = "tensorboard", steps
    config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    config.output_dir, config.timestamp = Path(tempfile.mkdtemp()), "run"
    atexit.register(shutil.rmtree, config.output_dir, ignore_errors=True)
    config.machine.device_type, config.machine.seed = "cpu", seed
    manager = config.pipeline.datamanager
    manager.dataparser, manager.band = parser, band
    manager.train_num_rays_per_batch, config.pipeline.model.num_samples = 256, 32
    config.pipeline.model.colour_frame = "world"  # the paper's
    config.set_experiment_name()
    torch.manual_seed(seed)
    np.random.seed(seed)
    trainer = config.setup()
    trainer.setup()
    if variant.change is not None:
        model = trainer.pipeline.model
        variant.change(model)
        model.field.wake(model.motion.vertices[0], model._frames[0])
        trainer.optimizers = trainer.setup_optimizers()
    return trainer


def run(variant: Variant, seed: int, steps: int, frames: int, size: int) -> Dict[str, Any]:
    """One training on the drawn person and its scores.

    Returns:
        What `trained_scores` returns, ``chamfer`` of the first frame's mesh in cm, none where it has no surface, and
        of runs that held poses out ``walk_psnr_masked``, of the person in poses of a walk.
    """
    trainer = trainer_for(variant, seed, steps, drawn(variant, frames, size))
    scores = trained_scores(trainer, SCORED_CAMERAS)
    model = trainer.pipeline.model.eval()
    scores = {**scores, "chamfer": _chamfer(model, seed)}
    return {**scores, **_walk_scores(model, size)} if variant.hold_out and variant.change != without_body else scores


def trained_scores(trainer: Trainer, scored_cameras: Sequence[int]) -> Dict[str, float]:
    """Train to the end and score.

    Returns:
        Means over the scored cameras of all trained frames, those of the first frame as ``first_...``, those of
        held-out frames as ``novel_pose_...``; ``train_seconds`` and ``render_ms`` (a picture) of the processor.
    """
    start = time.process_time()
    trainer.train()
    trained = time.process_time()
    return {**_scores(trainer.pipeline, scored_cameras), "train_seconds": round(trained - start, 1)}


@torch.no_grad()
def _scores(pipeline: Any, scored_cameras: Sequence[int]) -> Dict[str, float]:
    pipeline.eval()
    model, manager = pipeline.model, pipeline.datamanager
    views, rows, seconds = manager.eval_dataset.metadata["views"], [], []
    for camera, batch in manager.fixed_indices_eval_dataloader:
        frame, number = views[int(batch["image_idx"])]
        if number not in scored_cameras:
            continue
        start = time.process_time()
        outputs = model.get_outputs_for_camera(camera)
        seconds.append(time.process_time() - start)
        metrics, _ = model.get_image_metrics_and_images(outputs, batch)
        rows.append(metrics)
        if frame == 0:
            rows.append({f"first_{name}": value for name, value in metrics.items()})
    wanted = ("psnr", "psnr_box", "psnr_masked", "mask_iou")
    means = {}
    for prefix in ("", "first_", "novel_pose_"):
        for name in wanted:
            values = [row[prefix + name] for row in rows if prefix + name in row]
            if values:
                means[prefix + name] = float(np.mean(values))
    return {**means, "render_ms": 1000 * float(np.mean(seconds))}


@torch.no_grad()
def _walk_scores(model: Any, size: int) -> Dict[str, float]:
    """The person reposed: a walk that faces where the first frame does, against the same drawn; changes the model's
    poses."""
    motion = stride(anny_body(PHENOTYPE), WALK_FRAMES, 0.0)
    truth = draw_motion(motion, HumanSceneOptions(WALK_FRAMES, CAMERAS, size))
    model.set_motion(motion, ())
    found = []
    for frame in range(WALK_FRAMES):
        for number in SCORED_CAMERAS:
            time = torch.tensor([[frame / (WALK_FRAMES - 1)]])
            camera = Cameras(truth.poses[number][None, :3], truth.focal, truth.focal, size / 2, size / 2, size, size,
                             times=time)  # fmt: skip
            shown, person = model.get_outputs_for_camera(camera)["rgb"], truth.mask[frame, number] > 0
            error = (shown[person] - truth.rgb[frame, number][person]).square().mean()
            found.append(-10 * math.log10(float(error)))
    return {"walk_psnr_masked": float(np.mean(found))}


def _chamfer(model: Any, seed: int) -> Optional[float]:
    """Between the mesh of the first frame and the body that was drawn, cm."""
    try:
        mesh = body_mesh(model, 0, MESH_CELLS, SURFACE_DENSITY)
    except InputError:
        return None
    truth = model.motion.vertices[0].numpy(), model.motion.faces.numpy()
    ours, normals = sample_mesh(mesh.verts, mesh.faces, SURFACE_POINTS, seed)
    reference, reference_normals = sample_mesh(*truth, SURFACE_POINTS, seed)
    return 100 * compare_surfaces(ours, normals, reference, reference_normals, 0.04).chamfer
