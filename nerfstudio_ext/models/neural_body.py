"""Neural Body: Implicit Neural Representations with Structured Latent Codes for Novel View Synthesis of Dynamic Humans
(CVPR 2021).

Implemented: codes on the vertices of any body of fixed topology, diffused by a sparse convolution tower; a latent code
per frame; boxes per frame. Deviations: codes of vertices in one voxel are averaged, levels are read at their exact
place, only samples near the body are decoded (in training and evaluation alike), the last interval of a ray is finite.
Not here: novel poses, the released weights, ZJU-MoCap, an optimised body pose.
"""

from dataclasses import dataclass, field
from typing import Dict, List, Optional, Tuple, Type

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.frame_controls import FrameControls
from nerfstudio_ext.fields.neural_body_field import NeuralBodyField, NeuralBodyFieldConfig
from nerfstudio_ext.human.body_grid import body_frames, box_span
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.models.base import ExtModelConfig, RayModel
from nerfstudio_ext.surface.density import render_weights

PLAYBACK_FPS = 8.0


@dataclass
class NeuralBodyModelConfig(ExtModelConfig):
    """One moving person from a few cameras; the defaults are the paper's."""

    _target: Type = field(default_factory=lambda: NeuralBodyModel)
    enable_collider: bool = False
    """Each frame has a box of its own."""
    eval_num_rays_per_chunk: int = 4096
    """Rays rendered at once."""
    field: NeuralBodyFieldConfig = field(default_factory=NeuralBodyFieldConfig)
    """Architecture."""
    voxel_size: float = 0.005
    """Finest voxels of the tower, metres."""
    box_padding: float = 0.05
    """Room around the vertices on every side, metres."""
    reach: int = 3
    """Samples further than this many voxels of half the resolution from the body are empty and never decoded."""
    num_samples: int = 64
    """Samples on each ray, evenly over the box of the frame."""
    rgb_loss_mult: float = 1.0
    """Weight of the mean squared colour error."""
    mask_loss_mult: float = 0.0
    """Weight of the cross entropy between accumulation and mask (not in the paper; dark clothes on black need it)."""
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
        self.num_frames = len(motion.vertices)
        # What follows from the vertices alone is not saved: another motion may take its place.
        self._frames = body_frames(motion, config.voxel_size, config.box_padding, config.reach)
        self._volumes: Optional[Dict[int, List[Tensor]]] = None
        self.field = config.field.setup(num_vertices=motion.vertices.shape[1], num_frames=self.num_frames)
        self.frame_controls = FrameControls(self.num_frames, PLAYBACK_FPS)
        limit = config.gradient_limit
        for parameter in self.field.parameters():
            parameter.register_hook(lambda gradient: gradient.clamp(-limit, limit))
        trained = sum(p.numel() for p in self.field.parameters())
        sites = self._frames[0].tables.counts
        CONSOLE.print(f"{trained:,} trainable numbers; voxels at the five levels: {', '.join(map(str, sites))}")

    def get_param_groups(self) -> Dict[str, List[Parameter]]:
        return {"field": list(self.field.parameters())}

    def to(self, *args, **kwargs) -> "NeuralBodyModel":
        super().to(*args, **kwargs)
        self._frames = [frame.to(self.device) for frame in self._frames]
        return self

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
        numbers = (ray_bundle.times[:, 0].clamp(0, 1) * (self.num_frames - 1)).round().long()
        present = torch.unique(numbers).tolist()
        if len(present) == 1:
            return self._outputs_of_frame(origins, directions, present[0])
        where = [numbers == number for number in present]
        parts = [self._outputs_of_frame(origins[w], directions[w], n) for w, n in zip(where, present)]
        order = torch.argsort(torch.cat([torch.nonzero(w)[:, 0] for w in where]))
        return {key: torch.cat([part[key] for part in parts])[order] for key in parts[0]}

    def _outputs_of_frame(self, origins: Tensor, directions: Tensor, number: int) -> Dict[str, Tensor]:
        frame, count = self._frames[number], self.config.num_samples
        near, far = box_span(origins, directions, frame.box)
        length = (far - near).clamp(min=0)
        shares = torch.arange(count, device=origins.device).expand(len(origins), -1)
        offset = torch.rand(len(origins), count, device=origins.device) if self.training else 0.5
        depths = near[:, None] + length[:, None] * (shares + offset) / count
        deltas = (length / count)[:, None].expand(-1, count)
        points = origins[:, None] + depths[..., None] * directions[:, None]
        # Rays that miss the box have no length; nothing on them needs decoding.
        inside = (deltas > 0).flatten() & frame.is_near(points.reshape(-1, 3))
        kept = points.reshape(-1, 3)[inside]
        hidden = self.field.hidden(kept, frame, self._volumes_of(number))
        views = directions[:, None].expand(-1, count, -1).reshape(-1, 3)[inside]
        density = origins.new_zeros(inside.shape).masked_scatter(inside, self.field.density(hidden))
        colours = origins.new_zeros(*inside.shape, 3).masked_scatter(
            inside[:, None], self.field.colour(hidden, kept, views, number)
        )
        weights, _ = render_weights(density.view(-1, count), deltas)
        accumulation = weights.sum(-1, keepdim=True)
        return {
            "rgb": (weights[..., None] * colours.view(-1, count, 3)).sum(1),
            "accumulation": accumulation,
            "depth": (weights * depths).sum(-1, keepdim=True) / accumulation.clamp(min=1e-3),
        }

    def _volumes_of(self, number: int) -> List[Tensor]:
        if self._volumes is None:
            return self.field.volumes(self._frames[number])
        if number not in self._volumes:
            self._volumes[number] = self.field.volumes(self._frames[number])
        return self._volumes[number]

    @torch.no_grad()
    def density(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Volume density per metre at world points of the first frame, for meshes."""
        frame = self._frames[0]
        inside = frame.is_near(points)
        hidden = self.field.hidden(points[inside], frame, self._volumes_of(0))
        return points.new_zeros(len(points)).masked_scatter(inside, self.field.density(hidden))

    def get_loss_dict(
        self,
        outputs: Dict[str, Tensor],
        batch: Dict[str, Tensor],
        metrics_dict: Optional[Dict[str, Tensor]] = None,
    ) -> Dict[str, Tensor]:
        losses = {"rgb_loss": self.config.rgb_loss_mult * F.mse_loss(outputs["rgb"], self._colours(batch))}
        if self.config.mask_loss_mult > 0 and "fg_mask" in batch:
            losses["mask_loss"] = self.config.mask_loss_mult * self.mask_entropy(outputs, batch)
        return losses

    def get_image_metrics_and_images(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]
    ) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
        """The scores of every ray model, depth in metres; the picture ``geometry`` shows accumulation and depth."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        depth = outputs["depth"] / outputs["depth"].max().clamp(min=1e-3)
        maps = [x.expand(-1, -1, 3) for x in (outputs["accumulation"], depth)]
        images["geometry"] = torch.cat(maps, dim=1)
        return metrics, images

    def scene_span(self) -> float:
        """Diagonal of the first frame's box in metres: the depth error of a picture that shows no one."""
        return float((self._frames[0].box[1] - self._frames[0].box[0]).norm())

    def get_run_metrics(self) -> Dict[str, float]:
        """Trainable numbers, and voxels of the finest level in the first frame."""
        count = sum(p.numel() for p in self.field.parameters())
        return {"num_parameters": float(count), "num_voxels": float(self._frames[0].tables.counts[0])}
