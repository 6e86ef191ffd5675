"""KeypointNeRF: Generalizing Image-based Volumetric Avatars using Relative Spatial Encoding of Keypoints (ECCV 2022).

One network for all people; a person is some source views with masks, and 3-D keypoints. Implemented: both encoders, the
relative encoding with the ablations, fusion, blending of source colours, coarse and fine samples, view dropout. What
deviates: view directions are in the source camera's frame (`direction_frame`), near and far follow from the keypoints,
coarse samples are not computed twice, the last interval of a ray is finite, masks that carve are grown a little, and
colours come from outside a mask only where no view's own mask holds a point. Not here: the released weights.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Sequence, Tuple, Type

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.perceptual import VggDistance, vgg_weights_path
from nerfstudio_ext.engine.person_controls import PersonControls, SourcePicture
from nerfstudio_ext.fields.keypoint_nerf_field import EncodedViews, KeypointNeRFField, KeypointNeRFFieldConfig
from nerfstudio_ext.human.body_grid import box_span
from nerfstudio_ext.human.keypoint_encoding import keypoint_box
from nerfstudio_ext.human.subject import SourceViews, SubjectStore
from nerfstudio_ext.models.base import ExtModelConfig, RayModel
from nerfstudio_ext.surface.density import render_weights
from nerfstudio_ext.surface.sampler import inverse_cdf, sample_lengths

KEPT = 4
"""People whose feature maps are kept between pictures."""
PALETTE = ((0.90, 0.30, 0.25), (0.30, 0.75, 0.35), (0.25, 0.45, 0.95), (0.95, 0.80, 0.25), (0.7, 0.4, 0.9))
"""Colours of the source views in the output `sources`, in their order."""

PersonViews = Tuple[int, Tuple[int, ...]]
"""A person, and the views that it is reconstructed from."""


@dataclass
class KeypointNeRFModelConfig(ExtModelConfig):
    """Novel views of unseen people from a few photographs; the defaults are those of the released body model."""

    _target: Type = field(default_factory=lambda: KeypointNeRFModel)
    enable_collider: bool = False
    """Each person has a box of its own."""
    eval_num_rays_per_chunk: int = 4096
    """Rays rendered at once."""
    field: KeypointNeRFFieldConfig = field(default_factory=KeypointNeRFFieldConfig)
    """Architecture."""
    coarse_samples: int = 64
    """Samples on each ray, evenly over the box of the keypoints."""
    fine_samples: int = 64
    """More samples where the coarse ones found something."""
    density_noise: float = 0.01
    """Standard deviation of the noise on the density in training."""
    view_dropout: float = 0.5
    """Probability with which each view but one is left out of a training step."""
    coarse_loss_mult: float = 1.0
    """Weight of the mean absolute colour error of the coarse samples alone."""
    fine_loss_mult: float = 10.0
    """Weight of the mean absolute colour error."""
    perceptual_loss_mult: float = 0.5
    """Weight of the distance in VGG-19's features; only where its weights are on this machine."""
    mask_loss_mult: float = 0.0
    """Weight of the squared error between accumulation and mask."""


class KeypointNeRFModel(RayModel):
    """Rays carry in their metadata whose picture they belong to; rays that do not, see the moment of their time, or
    else the person that is shown."""

    config: KeypointNeRFModelConfig
    field: KeypointNeRFField
    keypoint_set: Tensor
    """Names of the keypoints as bytes, so that a checkpoint says which it was trained with."""

    def populate_modules(self) -> None:
        super().populate_modules()
        metadata = self.kwargs["metadata"]
        store: Optional[SubjectStore] = metadata.get("subjects")
        if store is None:
            raise InputError(
                "keypoint-nerf needs people: name a dataparser that brings some, as procedural-people-data."
            )
        self._store, self._sources = store, metadata["sources"]
        self._moments: bool = metadata["moments"]  # of one person, instead of people
        self._moment = metadata["shown"]
        self.shown: PersonViews = (metadata["shown"], tuple(self._sources[metadata["shown"]]))
        self.field = self.config.field.setup(num_keypoints=len(store.keypoint_names))
        keypoints = bytearray(",".join(store.keypoint_names).encode())
        self.register_buffer("keypoint_set", torch.frombuffer(keypoints, dtype=torch.uint8))
        # Of moments the time chooses, which the viewer has a slider for.
        names = [store.name(index) for index in range(1 if self._moments else len(store))]
        self.person_controls = PersonControls(names, self.shown, self.show, self._source_pictures)
        # Plain objects: feature maps belong to people and not to the network, metrics to nobody's checkpoint.
        self._encoded: OrderedDict[tuple, EncodedViews] = OrderedDict()
        vgg = VggDistance()
        self._vgg = vgg if self.config.perceptual_loss_mult > 0 and vgg.available else None

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> List[TrainingCallback]:
        """Nothing beside the parent's; says, as training begins, where its loss lacks a part."""
        if self.config.perceptual_loss_mult > 0 and self._vgg is None:
            CONSOLE.print(
                f"No perceptual loss: VGG-19's weights are not at {vgg_weights_path()}; colours are trained on the "
                "absolute error alone."
            )
        return super().get_training_callbacks(attributes)

    def get_param_groups(self) -> Dict[str, List[Parameter]]:
        return {"field": list(self.field.parameters())}

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """Load weights; see the parent.

        Raises:
            InputError: They were trained with another set of keypoints.
        """
        stored = state_dict.get("keypoint_set")
        if stored is not None and not torch.equal(stored.cpu(), self.keypoint_set.cpu()):
            trained = bytes(stored.cpu().tolist()).decode()
            raise InputError(
                f"These weights were trained with the keypoints {trained}, but the data has "
                f"{','.join(self._store.keypoint_names)}: bring the same ones in the same order."
            )
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def show(self, subject: int, sources: Sequence[int]) -> None:
        """Choose the person that cameras see which say nothing about it, as the viewer's.

        Raises:
            InputError: There is no such person, or it has no such views.
        """
        if not 0 <= subject < len(self._store):
            raise InputError(f"There is no person {subject}: they are numbered from 0 to {len(self._store) - 1}.")
        views = len(self._store.cameras(subject))
        if len(set(sources)) < 2 or not all(0 <= view < views for view in sources):
            raise InputError(f"{self._store.name(subject)} needs two views at least of 0 to {views - 1}.")
        self.shown = (subject, tuple(sources))

    @property
    def moments(self) -> List[int]:
        """Whom the time runs through: the moments of a sequence, or the one person that is shown."""
        return list(range(len(self._store))) if self._moments else [self.shown[0]]

    def _source_pictures(self) -> List[SourcePicture]:
        """Of the person that is shown, or of the moment that was rendered last."""
        subject = self._store.subject(self._moment if self._moments else self.shown[0])
        focal, views = subject.intrinsics[:, 1].tolist(), self.shown[1]
        return [SourcePicture(subject.poses[k].numpy(), subject.rgb[k].numpy(), focal[k]) for k in views]

    def encode(self, person: PersonViews) -> EncodedViews:
        """Feature maps of a person. In evaluation they are kept until the weights change or others are asked for."""
        subject, sources = person
        if self.training or torch.is_grad_enabled():
            return self._encode(subject, sources)
        weights = tuple(parameter._version for parameter in self.field.parameters())
        key = (person, self._store.version(subject), str(self.device), weights)
        if key not in self._encoded:
            self._encoded[key] = self._encode(subject, sources)
            while len(self._encoded) > KEPT:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(key)
        return self._encoded[key]

    def _encode(self, subject: int, sources: Sequence[int]) -> EncodedViews:
        return self.field.encode(SourceViews.of(self._store.subject(subject), sources, self.device))

    def get_outputs(self, ray_bundle: RayBundle) -> Dict[str, Tensor]:
        """Colours of a flat bundle of rays that all see one person; depth runs along the unit ray, in metres."""
        encoded = self.encode(self._person_of(ray_bundle))
        origins, directions = ray_bundle.origins, F.normalize(ray_bundle.directions, dim=-1)
        coarse_count, fine_count = self.config.coarse_samples, self.config.fine_samples
        kept = self._drop_views(len(encoded.coarse))
        near, far = box_span(origins, directions, keypoint_box(encoded.views.keypoints))
        far = torch.maximum(near, far)
        shares = torch.linspace(0, 1, coarse_count + 1, device=origins.device)
        edges = near[:, None] + (far - near)[:, None] * shares
        offset = torch.rand(len(origins), coarse_count, device=origins.device) if self.training else 0.5
        depths = edges[:, :-1] + offset * (edges[:, 1:] - edges[:, :-1])
        density, colours, blend = self._query(origins, directions, depths, encoded, kept)
        weights, _ = render_weights(density, sample_lengths(depths, near, far))
        outputs = {"rgb_coarse": (weights[..., None] * colours).sum(1)} if self.training else {}

        if self.training:
            positions = torch.rand(len(origins), fine_count, device=origins.device)
        else:
            positions = ((torch.arange(fine_count, device=origins.device) + 0.5) / fine_count).expand(len(origins), -1)
        more = inverse_cdf(edges, weights.detach() + 1e-5, positions)
        found = self._query(origins, directions, more, encoded, kept)
        depths, order = torch.sort(torch.cat([depths, more], dim=-1), dim=-1)
        density = torch.cat([density, found[0]], dim=-1).gather(1, order)
        colours, blend = (
            torch.cat([one, other], dim=1).gather(1, order[..., None].expand(-1, -1, one.shape[-1]))
            for one, other in ((colours, found[1]), (blend, found[2]))
        )
        weights, _ = render_weights(density, sample_lengths(depths, near, far))
        accumulation = weights.sum(-1, keepdim=True)
        depth = (weights * depths).sum(-1, keepdim=True) / accumulation.clamp(min=1e-3)
        outputs = {
            "rgb": (weights[..., None] * colours).sum(1),
            "accumulation": accumulation,
            "depth": depth,
            **outputs,
        }
        if not self.training:
            palette = origins.new_tensor([PALETTE[k % len(PALETTE)] for k in range(blend.shape[-1])])
            outputs["sources"] = (weights[..., None] * blend).sum(1) @ palette
        return outputs

    def _person_of(self, ray_bundle: RayBundle) -> PersonViews:
        metadata = ray_bundle.metadata
        if "subject" not in metadata and self._moments and ray_bundle.times is not None:
            last = len(self._store) - 1
            moment = min(max(round(float(ray_bundle.times.flatten()[0]) * last), 0), last)
            if moment != self._moment:
                self._moment = moment
                self.person_controls.draw()
            return moment, self.shown[1]
        if "subject" not in metadata:
            return self.shown
        return int(metadata["subject"][0, 0]), tuple(metadata["sources"][0].tolist())

    def _drop_views(self, count: int) -> Optional[Tensor]:
        """Views that this training step uses: one always, each other by chance; all in evaluation."""
        if not self.training or self.config.view_dropout == 0:
            return None
        kept = torch.rand(count, device=self.device) >= self.config.view_dropout
        kept[torch.randint(count, ())] = True
        return kept

    def _query(
        self, origins: Tensor, directions: Tensor, depths: Tensor, encoded: EncodedViews, kept: Optional[Tensor]
    ) -> Tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples 3"], Float[Tensor, "rays samples views"]]:
        """Density, colour and shares of the views at depths on rays; what no view sees is empty and costs nothing."""
        points = (origins[:, None] + depths[..., None] * directions[:, None]).reshape(-1, 3)
        seen = self.field.see(points, encoded, kept)
        inside = seen.valid.any(0)
        ways = directions[:, None].expand(-1, depths.shape[1], -1).reshape(-1, 3)[inside]
        noise = self.config.density_noise if self.training else 0.0
        density, colours, share = self.field(points[inside], ways, seen.at(inside), encoded, noise)

        def spread(values: Tensor) -> Tensor:
            full = values.new_zeros(len(points), values.shape[-1]).masked_scatter(inside[:, None], values)
            return full.unflatten(0, depths.shape)

        return spread(density[:, None])[..., 0], spread(colours), spread(share.T.contiguous())

    @torch.no_grad()
    def density(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Volume density per metre at world points around the person that is shown, for meshes."""
        encoded = self.encode(self.shown)
        low, high = keypoint_box(encoded.views.keypoints)
        seen = self.field.see(points, encoded)
        inside = seen.valid.any(0) & ((points > low) & (points < high)).all(-1)
        density = self.field.density(points[inside], seen.at(inside), encoded)
        return points.new_zeros(len(points)).masked_scatter(inside, density)

    def get_loss_dict(
        self,
        outputs: Dict[str, Tensor],
        batch: Dict[str, Tensor],
        metrics_dict: Optional[Dict[str, Tensor]] = None,
    ) -> Dict[str, Tensor]:
        config, wanted = self.config, self._colours(batch)
        losses = {"rgb_loss": config.fine_loss_mult * (outputs["rgb"] - wanted).abs().mean()}
        if "rgb_coarse" in outputs:
            losses["coarse_loss"] = config.coarse_loss_mult * (outputs["rgb_coarse"] - wanted).abs().mean()
        if config.mask_loss_mult > 0 and "fg_mask" in batch:
            error = outputs["accumulation"] - batch["fg_mask"].to(self.device)
            losses["mask_loss"] = config.mask_loss_mult * error.square().mean()
        if self._vgg is not None and "patch" in batch:
            side = int(batch["patch"])
            pair = (x.T.reshape(1, 3, side, side) for x in (outputs["rgb"], wanted))
            losses["perceptual_loss"] = config.perceptual_loss_mult * self._vgg(*pair)
        return losses

    def get_image_metrics_and_images(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]
    ) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
        """The scores of every ray model, and those of the rectangle around the person's box."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        if "box_mask" in batch:
            metrics.update(self.rectangle_scores(outputs, batch))
        images["sources"] = torch.cat([outputs["sources"], outputs["accumulation"].expand(-1, -1, 3)], dim=1)
        return metrics, images

    def surface_box(self) -> Float[Tensor, "2 3"]:
        """Lower and upper corner of the box that holds the shown person, metres; nothing is dense beyond it."""
        return keypoint_box(self._store.subject(self.shown[0]).keypoints)

    def scene_span(self) -> float:
        """Diagonal of the shown person's box in metres: the depth error of a picture that shows no one."""
        low, high = self.surface_box()
        return float((high - low).norm())

    def prepare_eval(self) -> None:
        """Say which views the scores are based on."""
        chosen = {tuple(views) for views in self._sources.values()}
        CONSOLE.print(f"Source views: {'; '.join(','.join(map(str, views)) for views in sorted(chosen))}")
        if any(len(views) == len(self._store.cameras(index)) for index, views in self._sources.items()):
            CONSOLE.print(
                "Every photo is a source: these scores compare with the very photos that the person is made from, and "
                "say nothing about new views. ns-ext keypoints condition --sources holds photos out."
            )

    def get_run_metrics(self) -> Dict[str, float]:
        """Trainable numbers, and views that people are reconstructed from."""
        count = sum(p.numel() for p in self.field.parameters())
        return {"num_parameters": float(count), "num_sources": float(len(self.shown[1]))}
