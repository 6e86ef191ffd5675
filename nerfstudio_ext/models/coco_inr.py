"""CoCo-INR: Coordinates Are NOT Lonely - Codebook Prior Helps Implicit Neural 3D Representations (NeurIPS 2022), with
VolSDF (NeurIPS 2021) as what remains without the prior.

Implemented: the four networks with codebook and coordinate attention, Laplace density, error-bounded sampling, the
inverted-sphere background, L1 and eikonal losses; optionally the opacity of NeuS instead. Not here: the ImageNet
codebook of the paper (give its path); a small table that the suite learned is the default. Deviations: prototypes once
per step instead of seven times; near-surface eikonal points lie on their rays (the published code starts them at the
ray's direction); optional mask and curvature losses.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Literal, Optional, Tuple, Type

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from nerfstudio_ext.codebook.modes import codebook_for
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.metrics import psnr
from nerfstudio_ext.fields.coco_inr_field import CoCoINRField, CoCoINRFieldConfig, Context
from nerfstudio_ext.models.base import ExtModelConfig, RayModel
from nerfstudio_ext.surface.density import LaplaceDensity, alpha_weights, logistic_alpha, render_weights
from nerfstudio_ext.surface.losses import curvature_loss, eikonal_loss
from nerfstudio_ext.surface.sampler import ErrorBoundedSampling, even_shares, sample_error_bounded
from nerfstudio_ext.surface.sphere import beyond, inverted_sphere_points, sphere_span

NEIGHBOUR = 0.01
"""Side of the cube about a point, in units of the normalised scene, that its neighbour is drawn from."""


@dataclass
class CoCoINRModelConfig(ExtModelConfig):
    """One object from a few views; the defaults are the paper's."""

    _target: Type = field(default_factory=lambda: CoCoINRModel)
    enable_collider: bool = False
    """Rays run from the camera to the bounding sphere."""
    eval_num_rays_per_chunk: int = 1024
    """Rays rendered at once."""
    sampling: ErrorBoundedSampling = field(default_factory=ErrorBoundedSampling)
    """Samples along the rays."""
    field: CoCoINRFieldConfig = field(default_factory=CoCoINRFieldConfig)
    """Architecture."""
    codebook: str = "default"
    """default (learned by the suite), a file, scene (learned from the training views), random (Gaussian with the
    default's mean and covariance), shuffle (the default with permuted columns), random:FILE or shuffle:FILE (of a
    file's), free (the prototypes are parameters) or none (no attention: VolSDF)."""
    codebook_seed: int = 0
    """Which table random and shuffle draw."""
    codebook_prune: bool = False
    """Drop code vectors that the codebook's own training never used."""
    allow_pickle: bool = False
    """Let a codebook file run the code it may contain, as old checkpoints need."""
    opacity: Literal["laplace", "logistic"] = "laplace"
    """What distances become: a density (VolSDF, as in the paper) or the opacity of each interval (NeuS); samples are
    placed by the former's error bound either way."""
    picture_gains: bool = False
    """Learn for every training picture a gain per colour channel (not in the paper): cameras that set exposure and
    white balance by themselves need it. Renders are in the pictures' mean exposure."""
    background_samples: int = 32
    """Samples beyond the bounding sphere."""
    bounding_radius: float = 3.0
    """Radius of the sphere about the origin that holds cameras and object."""
    background_radius: Optional[float] = None
    """Distance from the origin at which the background begins, behind the object; none: the bounding sphere's. Where
    masks say what the object is, a smaller one leaves to the background what stands close behind it."""
    initial_beta: float = 0.1
    """Scale of the density at the start, in world units."""
    minimum_beta: float = 1e-4
    """The scale never falls below this; above 0."""
    final_beta: Optional[float] = None
    """Scale of the density at the end, reached on a schedule (not in the paper; BakedSDF's); none: it is learned."""
    rgb_loss_mult: float = 1.0
    """Weight of the colour's L1 loss."""
    eikonal_loss_mult: float = 0.1
    """Weight of the loss that keeps the distance's gradient at length one."""
    curvature_loss_mult: float = 0.0
    """Weight of the loss that holds normals of neighbours together (not in the paper; MonoSDF: 0.005)."""
    mask_loss_mult: float = 0.0
    """Weight of the cross entropy between accumulation and foreground mask, where the data has masks (not in the
    paper; turntables need it)."""


class CoCoINRModel(RayModel):
    """Signed distance rendered as volume, in front of an inverted-sphere background."""

    config: CoCoINRModelConfig
    field: CoCoINRField

    def populate_modules(self) -> None:
        super().populate_modules()
        config, metadata = self.config, self.kwargs["metadata"]
        _require_fitting(config, metadata)
        opened = metadata.get("opened", False)
        codebook, attention = codebook_for(
            config.codebook,
            config.codebook_prune,
            config.allow_pickle,
            metadata.get("pictures"),
            opened,
            config.codebook_seed,
        )
        self.field = config.field.setup(codebook=codebook, attention=attention)
        self.density = LaplaceDensity(config.initial_beta, config.minimum_beta, config.final_beta)
        self.log_gains = Parameter(torch.zeros(self.num_train_data, 3)) if config.picture_gains else None
        if not opened:
            trained = sum(p.numel() for p in self.field.parameters() if p.requires_grad)
            CONSOLE.print(f"{trained:,} trainable numbers in the field")

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        """Take the number of pictures that have gains from the checkpoint; a run may be opened with others."""
        stored = state_dict.get(f"{prefix}log_gains")
        if self.log_gains is not None and stored is not None and self.kwargs["metadata"].get("opened", False):
            self.log_gains = Parameter(torch.empty_like(stored, device=self.log_gains.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def get_param_groups(self) -> Dict[str, List[Parameter]]:
        """``field``, and where there are any ``grid`` and ``gains``, which learn at rates of their own."""
        table = {} if self.field.grid is None else {"grid": [self.field.grid.table]}
        gains = {} if self.log_gains is None else {"gains": [self.log_gains]}
        networks = [p for name, p in self.field.named_parameters() if name != "grid.table"]
        return {"field": [*networks, *self.density.parameters()], **table, **gains}

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> List[TrainingCallback]:
        assert attributes.trainer is not None
        steps = attributes.trainer.config.max_num_iterations

        def anneal(step: int) -> None:
            self.density.anneal(min(1.0, step / max(1, steps - 1)))

        return [TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], anneal)]

    def get_outputs(self, ray_bundle: RayBundle) -> Dict[str, Tensor]:
        """Colours of a flat bundle of rays, with the gradients that the eikonal loss needs while training."""
        origins, directions = ray_bundle.origins, F.normalize(ray_bundle.directions, dim=-1)
        context = self.field.context()
        near, far = sphere_span(origins, directions, self.config.bounding_radius)

        def sdf_on_rays(rays: Tensor, t: Tensor) -> Tensor:
            points = origins[rays, None] + t[..., None] * directions[rays, None]
            return self.field.sdf(points.reshape(-1, 3), context).view(t.shape)

        t = sample_error_bounded(
            self.config.sampling, near, far, sdf_on_rays, float(self.density.beta), stratified=self.training
        )
        starts, deltas = t[:, :-1], t[:, 1:] - t[:, :-1]
        points = (origins[:, None] + starts[..., None] * directions[:, None]).reshape(-1, 3)
        sdf, feature, gradient = self.field.sdf_gradient(points, context)
        views = directions[:, None].expand(-1, starts.shape[1], -1).reshape(-1, 3)
        colours = self.field.colour(points, views, gradient, feature, context).view(*starts.shape, 3)
        if self.config.opacity == "logistic":
            weights, behind = alpha_weights(logistic_alpha(sdf.view(starts.shape), self.density.beta))
        else:
            weights, behind = render_weights(self.density(sdf).view(starts.shape), deltas)
        background = self._background(origins, directions, context)

        foreground = (weights[..., None] * colours).sum(1)
        accumulation = weights.sum(-1, keepdim=True)
        # Not of length one: beside the object they fade to grey, as accumulation does.
        normals = (weights[..., None] * F.normalize(gradient, dim=-1).view(*starts.shape, 3)).sum(1)
        outputs = {
            "rgb": foreground + behind[:, None] * background,
            "accumulation": accumulation,
            "depth": (weights * starts).sum(-1, keepdim=True) / accumulation.clamp(min=1e-3),
            "normals": (normals + 1) / 2,
        }
        if self.training:
            if self.log_gains is not None:
                assert ray_bundle.camera_indices is not None
                outputs["rgb"] = outputs["rgb"] * self._gains()[ray_bundle.camera_indices[..., 0]]
            outputs.update(self._regularised_gradients(origins, directions, starts, context))
        else:
            outputs["foreground"] = foreground
            outputs["background"] = background
            if "sdf" in context:
                surface = origins + outputs["depth"] * directions
                outputs["prototype_entropy"], outputs["prototypes"] = self.field.prototype_maps(surface)
        return outputs

    def _gains(self) -> Float[Tensor, "pictures 3"]:
        """Gains of the training pictures; their geometric mean is 1, or colours and gains could drift together."""
        assert self.log_gains is not None
        return torch.exp(self.log_gains - self.log_gains.mean(0))

    def signed_distance(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Signed distance, negative inside, at points of the normalised frame."""
        return self.field.sdf(points, self.field.context())

    @torch.no_grad()
    def surface_colours(self, points: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Colours of surface points seen along unit directions, without shooting rays."""
        context = self.field.context()
        _, feature, gradient = self.field.sdf_gradient(points, context)
        return self.field.colour(points, directions, gradient, feature, context)

    def _background(self, origins: Tensor, directions: Tensor, context: Context) -> Float[Tensor, "rays 3"]:
        """Colour from beyond the bounding sphere; the last sample takes what shines through all the others."""
        count = self.config.background_samples
        shares = even_shares(len(origins), count, self.training, origins.device)
        radius = self.config.background_radius or self.config.bounding_radius
        inverse = shares.flip(-1) / beyond(origins, directions, radius)
        points = inverted_sphere_points(origins, directions, inverse).reshape(-1, 4)
        views = directions[:, None].expand(-1, count, -1).reshape(-1, 3)
        density, colours = self.field.background(points, views, context)
        deltas = inverse[:, :-1] - inverse[:, 1:]
        weights, behind = render_weights(density.view(-1, count)[:, :-1], deltas)
        weights = torch.cat([weights, behind[:, None]], dim=-1)
        return (weights[..., None] * colours.view(-1, count, 3)).sum(1)

    def _regularised_gradients(
        self, origins: Tensor, directions: Tensor, starts: Tensor, context: Context
    ) -> Dict[str, Float[Tensor, "points 3"]]:
        """Gradients at one random point of the box per ray, and at one of the ray's samples; where it is asked for,
        also at neighbours of the latter."""
        radius, count = self.config.bounding_radius, len(origins)
        anywhere = (torch.rand_like(origins) * 2 - 1) * radius
        pick = torch.randint(starts.shape[1], (count, 1), device=starts.device)
        nearby = origins + starts.gather(1, pick) * directions
        points = [anywhere, nearby]
        if self.config.curvature_loss_mult > 0:
            points.append(nearby + (torch.rand_like(nearby) - 0.5) * NEIGHBOUR)
        gradients = self.field.sdf_gradient(torch.cat(points), context)[2]
        found = {"eikonal_gradients": gradients[: 2 * count]}
        return {**found, "neighbour_gradients": gradients[2 * count :]} if len(points) > 2 else found

    def get_metrics_dict(self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]) -> Dict[str, Tensor]:
        return {**super().get_metrics_dict(outputs, batch), "beta": self.density.beta.detach()}

    def get_loss_dict(
        self,
        outputs: Dict[str, Tensor],
        batch: Dict[str, Tensor],
        metrics_dict: Optional[Dict[str, Tensor]] = None,
    ) -> Dict[str, Tensor]:
        config = self.config
        losses = {"rgb_loss": config.rgb_loss_mult * F.l1_loss(outputs["rgb"], self._colours(batch))}
        if "eikonal_gradients" in outputs:
            losses["eikonal_loss"] = config.eikonal_loss_mult * eikonal_loss(outputs["eikonal_gradients"])
        if "neighbour_gradients" in outputs:
            nearby = outputs["eikonal_gradients"].chunk(2)[1]
            losses["curvature_loss"] = config.curvature_loss_mult * curvature_loss(
                nearby, outputs["neighbour_gradients"]
            )
        if config.mask_loss_mult > 0 and "fg_mask" in batch:
            losses["mask_loss"] = config.mask_loss_mult * self.mask_entropy(outputs, batch)
        return losses

    def get_image_metrics_and_images(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]
    ) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
        """The scores of every ray model, and where normals are known ``normal_error`` in degrees, over the pixels that
        are object in both. With gains of the pictures also ``cc_psnr`` and ``cc_psnr_masked``: a held-out picture's
        own exposure and white balance, which nothing can foretell, are taken out first.
        """
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        if self.config.picture_gains:
            metrics.update(_corrected_scores(outputs["rgb"], self._colours(batch), batch.get("fg_mask")))
        images["geometry"] = torch.cat([outputs["normals"], outputs["accumulation"].expand(-1, -1, 3)], dim=1)
        if "fg_mask" in batch and "gt_normals" in batch:
            _, both = self.object_pixels(outputs, batch)
            wanted = batch["gt_normals"].to(self.device)[both]
            found = F.normalize(outputs["normals"][both] * 2 - 1, dim=-1)
            cosine = (found * wanted).sum(-1).clamp(-1, 1)
            angles = torch.rad2deg(torch.acos(cosine))
            metrics["normal_error"] = float(angles.mean()) if bool(both.any()) else 90.0
        return metrics, images

    def scene_span(self) -> float:
        return float(self.config.bounding_radius)

    def get_run_metrics(self) -> Dict[str, float]:
        """Trainable numbers and the final scale of the density."""
        count = sum(p.numel() for p in self.field.parameters() if p.requires_grad)
        return {"num_parameters": float(count), "beta": float(self.density.beta)}


def _corrected_scores(
    shown: Float[Tensor, "height width 3"],
    wanted: Float[Tensor, "height width 3"],
    mask: Optional[Float[Tensor, "height width 1"]],
) -> Dict[str, float]:
    """PSNR after each channel took the gain that suits it best, over all pixels and over those of the mask."""
    everything = torch.ones_like(shown[..., 0], dtype=torch.bool)
    parts = {"cc_psnr": everything}
    if mask is not None and bool((mask > 0.5).any()):
        parts["cc_psnr_masked"] = mask.to(shown.device)[..., 0] > 0.5
    scores = {}
    for name, part in parts.items():
        a, b = shown[part], wanted[part]
        gain = (a * b).sum(0) / a.square().sum(0).clamp(min=1e-9)
        scores[name] = float(psnr((a * gain).clamp(0, 1)[None], b[None]))
    return scores


def _require_at_least(least: int, prefix: str, settings: Any, *names: str) -> None:
    """Refuse counts that are too small.

    Args:
        least: The smallest that works.
        prefix: What stands before their names after --pipeline.model.
        settings: What holds them.
        names: Which of its fields.

    Raises:
        InputError: One is smaller.
    """
    for name in names:
        value = getattr(settings, name)
        if value < least:
            raise InputError(f"--pipeline.model.{prefix}{name.replace('_', '-')} {value} must be {least} at least.")


def _require_fitting(config: CoCoINRModelConfig, metadata: Dict[str, Any]) -> None:
    """Refuse settings that the data cannot serve, as far as it tells.

    Raises:
        InputError: Numbers with which nothing can be drawn, a mask loss without masks, a background that begins nowhere
            or beyond the sphere, or cameras outside of that.
    """
    sampling, field = config.sampling, config.field
    _require_at_least(0, "field.", field, "depth", "colour_layers", "position_octaves", "colour_octaves",
                     "direction_octaves", "background_octaves", "colour_attentions")  # fmt: skip
    _require_at_least(1, "field.", field, "num_prototypes", "prototype_width", "heads", "head_width", "layers", "width")
    _require_at_least(1, "sampling.", sampling, "final_samples", "max_rounds")
    _require_at_least(0, "sampling.", sampling, "extra_samples", "bisections")
    _require_at_least(2, "sampling.", sampling, "samples_per_round")
    _require_at_least(2, "", config, "background_samples")
    if sampling.extra_samples > sampling.samples_per_round:
        raise InputError(
            f"--pipeline.model.sampling.extra-samples {sampling.extra_samples} are drawn from the first round's "
            f"positions, of which there are {sampling.samples_per_round} (--pipeline.model.sampling.samples-per-round)."
        )
    if not sampling.epsilon > 0:
        raise InputError(f"--pipeline.model.sampling.epsilon {sampling.epsilon:g} must be above 0: no error is none.")
    final = config.final_beta
    if final is not None and not config.minimum_beta <= final <= config.minimum_beta + config.initial_beta:
        raise InputError(
            f"--pipeline.model.final-beta {final:g} must lie between --pipeline.model.minimum-beta "
            f"{config.minimum_beta:g} and where the scale begins, {config.minimum_beta + config.initial_beta:g} (with "
            "--pipeline.model.initial-beta), as 0.006 does."
        )
    if not config.minimum_beta > 0:
        raise InputError(f"--pipeline.model.minimum-beta {config.minimum_beta:g} must be above 0: distances go by it.")
    if not 0 <= config.initial_beta < math.inf:
        raise InputError(f"--pipeline.model.initial-beta {config.initial_beta:g} must be a number, 0 at least.")
    if config.mask_loss_mult > 0 and not metadata.get("has_masks", True):
        raise InputError(
            f"--pipeline.model.mask-loss-mult {config.mask_loss_mult:g} needs masks, and this data has none: bring "
            "masks, or set it to 0."
        )
    start = config.background_radius
    if start is not None and not 0 < start <= config.bounding_radius:
        raise InputError(
            f"--pipeline.model.background-radius {start:g} must be above 0 and no more than the bounding sphere's "
            f"{config.bounding_radius:g}."
        )
    reach = metadata.get("camera_reach", 0.0)
    if config.bounding_radius <= reach:
        raise InputError(
            f"--pipeline.model.bounding-radius {config.bounding_radius:g} leaves cameras outside, which stand up to "
            f"{reach:.2f} from the origin: take a larger one, or keep the cameras of the file "
            "(--pipeline.datamanager.normalise file)."
        )
