"""Neural Body: Implicit Neural Representations with Structured Latent Codes for Novel View Synthesis of Dynamic Humans
(CVPR 2021).

Implemented: codes on the vertices of any body of fixed topology, diffused by a sparse convolution tower; a latent code
per frame; boxes per frame. Deviations: codes of vertices in one voxel are averaged, levels are read at their exact
place, only samples near the body are decoded (in training and evaluation alike), the last interval of a ray is finite.
Released weights come in through `fields/official_weights.py`.
"""

from dataclasses import dataclass, field
from itertools import chain
from typing import Dict, List, Literal, Optional, Sequence, Tuple, Type, Union

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.frame_controls import FrameControls
from nerfstudio_ext.engine.pose_controls import PoseControls
from nerfstudio_ext.fields.neural_body_field import NeuralBodyField, NeuralBodyFieldConfig
from nerfstudio_ext.human.body_grid import BodyFrame, BodyFrames, box_span
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.pose_refinement import PoseRefinement
from nerfstudio_ext.human.pose_sources import chosen_motion, nearest_pose
from nerfstudio_ext.human.splat import lay_over
from nerfstudio_ext.models.base import ExtModelConfig, RayModel
from nerfstudio_ext.surface.density import render_weights

PLAYBACK_FPS = 8.0
FAINT = 1e-4
"""Share in a pixel below which a sample's colour is not worked out when rendering: all of them together stay below
what 8 bits tell apart."""


@dataclass
class NeuralBodyModelConfig(ExtModelConfig):
    """One moving person from a few cameras; the defaults are the paper's."""

    _target: Type = field(default_factory=lambda: NeuralBodyModel)
    enable_collider: bool = False
    """Each frame has a box of its own."""
    eval_num_rays_per_chunk: int = 8192
    """Rays rendered at once."""
    field: NeuralBodyFieldConfig = field(default_factory=NeuralBodyFieldConfig)
    """Architecture."""
    voxel_size: float = 0.005
    """Finest voxels of the tower, metres."""
    box_padding: Union[float, Tuple[float, float, float]] = 0.05
    """Room around the vertices on every side, or along x, y and z, metres: rays are sampled in this box, drawn from it
    and scored by it."""
    reach: int = 3
    """Samples further than this many voxels of half the resolution from the body are empty and never decoded."""
    num_samples: int = 64
    """Samples on each ray, evenly over the box of the frame."""
    rgb_loss_mult: float = 1.0
    """Weight of the mean squared colour error."""
    mask_loss_mult: float = 0.0
    """Weight of the cross entropy between accumulation and mask (not in the paper; dark clothes on black need it)."""
    random_background: bool = False
    """Lay render and picture over one random colour per training ray, so that dark clothes differ from nothing (not in
    the paper; needs good masks)."""
    refine_poses: bool = False
    """Learn a small rigid motion of the body per training frame (not in the paper), for fits that are a little off."""
    novel_pose_latent: Literal["last", "mean", "nearest", "zero"] = "last"
    """Latent code of frames that were not trained on: of the last one (the paper's), the mean, of the one whose
    pose is nearest, or 0."""
    colour_frame: Literal["world", "body"] = "world"
    """Where positions and viewing directions that colours depend on are measured: in the world (the paper's), or in
    the body's frame. In the world a person who stands or turns elsewhere than in training may change colour."""
    cached_frames: int = 400
    """Frames whose grids and tables are kept in memory; at 5 mm each takes about 16 MB."""
    gradient_limit: float = 40.0
    """Gradients are cut at this absolute value, number by number."""


class NeuralBodyModel(RayModel):
    """Radiance around a body, frame by frame; rays without a time see the first frame."""

    config: NeuralBodyModelConfig
    field: NeuralBodyField

    def populate_modules(self) -> None:
        super().populate_modules()
        config = self.config
        motion: Optional[BodyMotion] = self.kwargs["metadata"].get("body_motion")
        if motion is None:
            raise InputError("neural-body needs a body: name a dataparser that brings one, as procedural-human-data.")
        if config.num_samples < 1:
            raise InputError(f"num_samples is {config.num_samples}, but every ray needs a sample at least.")
        self._volumes: Optional[Dict[int, List[Tensor]]] = None
        trained = self.kwargs["metadata"].get("trained_frames", range(len(motion.vertices)))
        self.field = config.field.setup(num_vertices=motion.vertices.shape[1], num_frames=len(trained))
        self.refinement = PoseRefinement(len(trained)) if config.refine_poses else None
        self.set_motion(motion, trained)
        self.field.wake(motion.vertices[trained[0]], self._frames[trained[0]])
        self._captured, self._trained, self._in_training = motion, list(trained), False
        self.frame_controls = FrameControls(self.num_frames, PLAYBACK_FPS)
        sources = ["captured"] if motion.rest is None else ["captured", "rest"]
        self.pose_controls = PoseControls(sources, self.choose_poses)
        limit = config.gradient_limit
        for parameter in chain.from_iterable(self.get_param_groups().values()):
            parameter.register_hook(lambda gradient: gradient.clamp(-limit, limit))
        trained = sum(p.numel() for p in self.field.parameters())
        sites = self._frames[0].tables.counts
        CONSOLE.print(f"{trained:,} trainable numbers; voxels at the five levels: {', '.join(map(str, sites))}")

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> List[TrainingCallback]:
        """Training needs the captured poses: others can be chosen once it has ended."""
        self._in_training = True

        def ended(step: int) -> None:
            self._in_training = False

        return [TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], ended)]

    def get_param_groups(self) -> Dict[str, List[Parameter]]:
        groups = {"field": list(self.field.parameters())}
        return groups if self.refinement is None else {**groups, "poses": list(self.refinement.parameters())}

    def to(self, *args, **kwargs) -> "NeuralBodyModel":
        super().to(*args, **kwargs)
        self._frames = self._frames.to(self.device)
        return self

    def set_motion(self, motion: BodyMotion, trained: Sequence[int] = ()) -> None:
        """Let a motion drive the model from now on. It is not saved: any other one may take its place.

        Args:
            motion: Of the body that the codes live on.
            trained: Its frames that have a latent code, in the order of the codes; the others follow
                `novel_pose_latent`.

        Raises:
            InputError: It is the motion of another body.
        """
        vertices, codes = motion.vertices.shape[1], len(self.field.codes)
        if vertices != codes:
            raise InputError(
                f"The motion's body has {vertices} vertices, but the model's codes live on {codes}: pose the body "
                "that it was trained with."
            )
        config = self.config
        frames = BodyFrames(motion, config.voxel_size, config.box_padding, config.reach, config.cached_frames)
        self._frames = frames.to(self.field.codes.device)
        self.motion = motion
        self._latent_rows = {int(frame): row for row, frame in enumerate(trained)}
        self._alike: Dict[int, int] = {}
        self.num_frames = len(motion.vertices)

    def choose_poses(self, source: str, path: str) -> str:
        """Show the captured poses, the body at rest, or the poses in a `body.npz`; times run from their first frame to
        their last.

        Returns:
            What is shown, in words.

        Raises:
            InputError: The model is being trained, or there are no such poses.
        """
        if self._in_training:
            raise InputError("The training needs the captured poses: choose others when it has ended.")
        motion, words = chosen_motion(source, path, self._captured)
        self.set_motion(motion, self._trained if motion is self._captured else ())
        return words

    def _frame(self, number: int) -> BodyFrame:
        """A frame, with what was learned about where its body is."""
        frame, row = self._frames[number], self._latent_rows.get(number)
        return frame if self.refinement is None or row is None else self.refinement(frame, row)

    def latent_of(self, number: int) -> Float[Tensor, "latent"]:
        """Latent code of a frame."""
        latents, rows = self.field.latents, self._latent_rows
        if number in rows:
            return latents[rows[number]]
        policy = self.config.novel_pose_latent
        if policy == "mean":
            return latents.mean(dim=0)
        if policy == "zero":
            return torch.zeros_like(latents[0])
        if policy == "nearest":
            if number not in self._alike:
                self._alike[number] = nearest_pose(self.motion.at([number]), self._captured.at(self._trained))
            return latents[self._alike[number]]
        return latents[-1]

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: Optional[OrientedBox] = None) -> Dict[str, Tensor]:
        """One picture, and ``body``: the vertices of its frame over it."""
        outputs = super().get_outputs_for_camera(camera, obb_box)
        number = 0 if camera.times is None else int(self._numbers(camera.times.flatten()[:1]))
        vertices = self._frames[number].carried(self.motion.vertices[number].to(self.device), self._frame(number))
        outputs["body"] = lay_over(outputs["rgb"], vertices, camera)
        return outputs

    @torch.no_grad()
    def get_outputs_for_camera_ray_bundle(self, camera_ray_bundle: RayBundle) -> Dict[str, Tensor]:
        """One picture; the codes are diffused once for all its chunks."""
        self._volumes = {}
        try:
            return super().get_outputs_for_camera_ray_bundle(camera_ray_bundle)
        finally:
            self._volumes = None

    def get_outputs(self, ray_bundle: RayBundle) -> Dict[str, Tensor]:
        """Colours of a flat bundle of rays; depth runs along the unit ray, in metres."""
        origins, directions = ray_bundle.origins, F.normalize(ray_bundle.directions, dim=-1)
        if ray_bundle.times is None:
            return self._outputs_of_frame(origins, directions, 0)
        numbers = self._numbers(ray_bundle.times[:, 0])
        present = torch.unique(numbers).tolist()
        if len(present) == 1:
            return self._outputs_of_frame(origins, directions, present[0])
        where = [numbers == number for number in present]
        parts = [self._outputs_of_frame(origins[w], directions[w], n) for w, n in zip(where, present)]
        order = torch.argsort(torch.cat([torch.nonzero(w)[:, 0] for w in where]))
        return {key: torch.cat([part[key] for part in parts])[order] for key in parts[0]}

    def _numbers(self, times: Float[Tensor, "n"]) -> Tensor:
        """Frames at some times."""
        return (times.clamp(0, 1) * (self.num_frames - 1)).round().long()

    def _outputs_of_frame(self, origins: Tensor, directions: Tensor, number: int) -> Dict[str, Tensor]:
        frame, count = self._frame(number), self.config.num_samples
        near, far = box_span(origins, directions, frame.box)
        meets = torch.nonzero(far > near)[:, 0]
        start, views = near[meets, None], directions[meets]
        length = (far - near)[meets, None]
        shares = torch.arange(count, device=origins.device).expand(len(meets), -1)
        offset = torch.rand(len(meets), count, device=origins.device) if self.training else 0.5
        depths = start + length * (shares + offset) / count
        points = (origins[meets, None] + depths[..., None] * views[:, None]).reshape(-1, 3)
        inside = frame.is_near(points)
        hidden = self.field.hidden(points[inside], frame, self._volumes_of(number))
        density = depths.new_zeros(inside.shape).masked_scatter(inside, self.field.density(hidden))
        weights, _ = render_weights(density.view(-1, count), (length / count).expand(-1, count))
        lit = inside
        if not self.training:
            lit = inside & (weights.flatten() > FAINT)
            hidden = hidden[lit[inside]]
        points, views = points[lit], views[:, None].expand(-1, count, -1).reshape(-1, 3)[lit]
        if self.config.colour_frame == "body":
            points, views = frame.from_world(points), views @ frame.rotation
        colours = self.field.colour(hidden, points, views, self.latent_of(number))
        colours = depths.new_zeros(*lit.shape, 3).masked_scatter(lit[:, None], colours)
        total = weights.sum(-1, keepdim=True)
        found = {
            "rgb": (weights[..., None] * colours.view(-1, count, 3)).sum(1),
            "accumulation": total,
            "depth": (weights * depths).sum(-1, keepdim=True) / total.clamp(min=1e-3),
        }
        # Rays that miss the box see nothing.
        return {k: v.new_zeros(len(origins), v.shape[1]).index_copy(0, meets, v) for k, v in found.items()}

    def _volumes_of(self, number: int) -> List[Tensor]:
        if self._volumes is None:
            return self.field.volumes(self._frames[number])
        if number not in self._volumes:
            self._volumes[number] = self.field.volumes(self._frames[number])
        return self._volumes[number]

    @torch.no_grad()
    def density(self, points: Float[Tensor, "n 3"], number: int = 0) -> Float[Tensor, "n"]:
        """Volume density per metre at world points of a frame, for meshes."""
        frame = self._frame(number)
        inside = frame.is_near(points)
        hidden = self.field.hidden(points[inside], frame, self._volumes_of(number))
        return points.new_zeros(len(points)).masked_scatter(inside, self.field.density(hidden))

    def get_loss_dict(
        self,
        outputs: Dict[str, Tensor],
        batch: Dict[str, Tensor],
        metrics_dict: Optional[Dict[str, Tensor]] = None,
    ) -> Dict[str, Tensor]:
        found, wanted = outputs["rgb"], self._colours(batch)
        if self.config.random_background and self.training and "fg_mask" in batch:
            behind = torch.rand_like(found)
            found = found + (1 - outputs["accumulation"]) * behind
            wanted = wanted + (1 - batch["fg_mask"].to(self.device)) * behind
        losses = {"rgb_loss": self.config.rgb_loss_mult * F.mse_loss(found, wanted)}
        if self.config.mask_loss_mult > 0 and "fg_mask" in batch:
            losses["mask_loss"] = self.config.mask_loss_mult * self.mask_entropy(outputs, batch)
        return losses

    def get_image_metrics_and_images(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]
    ) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
        """The scores of every ray model, depth in metres, ``psnr_box`` over the pixels whose ray meets the body's box,
        and ``ssim_box`` and ``ssim_zju`` of the rectangle around them.

        Scores of poses that were not trained on are called ``novel_pose_...``. The picture ``geometry`` shows
        accumulation and depth.
        """
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        if "box_mask" in batch and bool(batch["box_mask"].any()):
            box = batch["box_mask"].to(self.device)[..., 0]
            error = (outputs["rgb"] - self._colours(batch))[box].square().mean()
            metrics.update(self.rectangle_scores(outputs, batch))
            metrics["psnr_box"] = float(-10 * torch.log10(error + 1e-9))  # of the rays alone, as the paper has it
        depth = outputs["depth"] / outputs["depth"].max().clamp(min=1e-3)
        maps = [x.expand(-1, -1, 3) for x in (outputs["accumulation"], depth)]
        images["geometry"] = torch.cat(maps, dim=1)
        if int(batch.get("frame", next(iter(self._latent_rows), 0))) not in self._latent_rows:
            metrics = {f"novel_pose_{key}": value for key, value in metrics.items()}
        return metrics, images

    def scene_span(self) -> float:
        """Diagonal of the first frame's box in metres: the depth error of a picture that shows no one."""
        return float((self._frames[0].box[1] - self._frames[0].box[0]).norm())

    def get_run_metrics(self) -> Dict[str, float]:
        """Trainable numbers, and voxels of the finest level in the first frame."""
        count = sum(p.numel() for p in self.field.parameters())
        return {"num_parameters": float(count), "num_voxels": float(self._frames[0].tables.counts[0])}
