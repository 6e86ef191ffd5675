"""Density and colour of a person from a few photographs and keypoints (KeypointNeRF, sections 3.2 to 3.4)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Optional, Tuple, Type

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from nerfstudio.configs.base_config import InstantiateConfig
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from nerfstudio_ext.human.image_encoders import GeometryEncoder, TextureEncoder
from nerfstudio_ext.human.keypoint_encoding import EncodingMode, encode_points, encoded_width, relative_directions
from nerfstudio_ext.human.subject import SourceViews
from nerfstudio_ext.human.view_sampling import HullMode, Seen, dilated, sample_maps, see

DEFAULT_WEIGHTS = Path(__file__).with_name("keypoint_nerf_tiny.safetensors")
"""What `keypoint-nerf-tiny` learned from drawn people; its header tells how it was made."""
MASKED = -1e9
"""Logit of a view that may not be blended."""


@dataclass
class KeypointNeRFFieldConfig(InstantiateConfig):
    """Architecture; the defaults are the released body model's."""

    _target: Type = field(default_factory=lambda: KeypointNeRFField)
    encoding: EncodingMode = "rel_z_decay"
    """How points are told apart: rel_z_decay is the method, the others are its ablation."""
    octaves: int = 3
    """Frequencies of the encoding."""
    sigma: float = 0.1
    """Reach of a keypoint, metres."""
    input_pool: int = 2
    """The encoders see the pictures at this fraction of their resolution."""
    stem: int = 64
    """Channels of the geometry encoder's first convolution."""
    hourglass_width: int = 256
    """Channels of the hourglass."""
    hourglass_depth: int = 4
    """Halvings inside the hourglass."""
    coarse_width: int = 64
    """Channels of the coarse geometry map."""
    fine_width: int = 8
    """Channels of the fine geometry map."""
    texture_width: int = 64
    """Channels of the texture encoder's first convolution."""
    texture_blocks: int = 4
    """Residual blocks of the texture encoder."""
    texture_channels: int = 8
    """Channels of the texture map."""
    width: int = 128
    """Width of the geometry network."""
    latent_width: int = 64
    """Numbers that each view says about a point."""
    blend_width: int = 24
    """Numbers of the fused geometry that the blending of colours sees."""
    density_gain: float = 1.0
    """The density is this times what the network says; short trainings need more than 1."""
    density_activation: Literal["relu", "softplus"] = "relu"
    """What keeps the density positive: relu is official, but a start at zero everywhere never learns; softplus does."""
    hull: HullMode = "all"
    """In how many masks a point must be: all is official; majority forgives one bad or truncated mask of three."""
    mask_dilation: float = 0.01
    """Masks that carve are grown by this share of the picture's width."""
    direction_frame: Literal["camera", "world"] = "camera"
    """Frame of the view directions: camera makes colours independent of how the world is turned; world is official."""


@dataclass(frozen=True)
class EncodedViews:
    """Source views and what the encoders make of them: all that a person is to the networks."""

    views: SourceViews
    carving: Float[Tensor, "views 1 h w"]
    """Masks grown a little, outside of which nothing is."""
    coarse: Float[Tensor, "views coarse h4 w4"]
    fine: Float[Tensor, "views fine h w"]
    texture: Float[Tensor, "views texture h2 w2"]


class KeypointNeRFField(nn.Module):
    """One network for all people. Points, keypoints and directions are in one world frame, metres.

    Args:
        config: Architecture.
        num_keypoints: Size of the keypoint set.
    """

    def __init__(self, config: KeypointNeRFFieldConfig, num_keypoints: int) -> None:
        super().__init__()
        self.config = config
        self.geometry_encoder = GeometryEncoder(
            config.stem, config.hourglass_width, config.hourglass_depth, config.coarse_width, config.fine_width
        )
        self.texture_encoder = TextureEncoder(config.texture_width, config.texture_blocks, config.texture_channels)
        coded = encoded_width(config.encoding, num_keypoints, config.octaves)
        width, latent = config.width, config.latent_width
        # The fine feature joins half way; the released code narrows what it joins to keep the sum at 128.
        self.first = nn.ModuleList([_normed(coded + config.coarse_width, width), _normed(width, width)])
        joined = width + config.fine_width
        self.second = nn.ModuleList([_normed(joined, width - config.fine_width)])
        self.latent = nn.Linear(width - config.fine_width, latent)
        self.fused = nn.ModuleList([_normed(2 * latent, latent), _normed(latent, latent)])
        self.density_head = nn.Linear(latent, 1)
        self.compress = nn.Linear(2 * latent, config.blend_width)
        self.blending = BlendingHead(3 + config.texture_channels + config.blend_width)

    def encode(self, views: SourceViews) -> EncodedViews:
        """Feature maps of the source views; once per person, however many points are asked for afterwards."""
        pictures = 2 * F.avg_pool2d(views.rgb, self.config.input_pool) - 1
        coarse, fine = self.geometry_encoder(pictures)
        carving = dilated(views.mask, self.config.mask_dilation)
        return EncodedViews(views, carving, coarse, fine, self.texture_encoder(pictures))

    def see(
        self, points: Float[Tensor, "n 3"], encoded: EncodedViews, kept: Optional[Bool[Tensor, "views"]] = None
    ) -> Seen:
        """How the source views see points; views that are not kept say nothing, but their masks still carve."""
        seen = see(points, encoded.views, encoded.carving, self.config.hull)
        if kept is None:
            return seen
        return Seen(seen.pixels, seen.valid & kept[:, None], seen.weight * kept[:, None])

    def forward(
        self,
        points: Float[Tensor, "n 3"],
        directions: Float[Tensor, "n 3"],
        seen: Seen,
        encoded: EncodedViews,
        noise: float = 0.0,
    ) -> Tuple[Float[Tensor, "n"], Float[Tensor, "n 3"], Float[Tensor, "views n"]]:
        """Density per metre, colour in [0, 1] and share of each view in the colour.

        Args:
            points: World frame.
            directions: Unit directions of the rays on which the points are wanted.
            seen: How the source views see the points.
            encoded: The source views.
            noise: Standard deviation of what is added to the density before it is cut at 0.
        """
        mean_and_variance = self.fuse(points, seen, encoded)
        density = self._density(mean_and_variance, seen.valid.any(0), noise)
        views = encoded.views
        height, width = views.rgb.shape[-2:]
        rgb = sample_maps(views.rgb, seen.pixels, height, width)
        texture = sample_maps(encoded.texture, seen.pixels, height, width)
        geometry = self.compress(mean_and_variance).expand(len(rgb), -1, -1)
        turned = relative_directions(points, directions, views.world_to_camera, self.config.direction_frame)
        # The masks that carve are grown, but a picture is black beside the person: colours ask the mask itself, unless
        # a point is in the grown rim of all views.
        sharp = sample_maps(views.mask, seen.pixels, height, width)[..., 0] > 0.5
        usable = seen.valid & sharp
        usable = torch.where(usable.any(0), usable, seen.valid)
        share = self.blending(torch.cat([rgb, texture, geometry], dim=-1), turned, usable)
        return density, (share[..., None] * rgb).sum(0), share

    def density(self, points: Float[Tensor, "n 3"], seen: Seen, encoded: EncodedViews) -> Float[Tensor, "n"]:
        """Density per metre alone."""
        return self._density(self.fuse(points, seen, encoded), seen.valid.any(0), 0.0)

    def fuse(self, points: Float[Tensor, "n 3"], seen: Seen, encoded: EncodedViews) -> Float[Tensor, "n fused"]:
        """Weighted mean and variance over the views of what each says about a point."""
        config, views = self.config, encoded.views
        height, width = views.rgb.shape[-2:]
        code = encode_points(
            points, views.keypoints, views.world_to_camera, config.encoding, config.octaves, config.sigma
        )
        x = torch.cat([code, sample_maps(encoded.coarse, seen.pixels, height, width)], dim=-1)
        for layer in self.first:
            x = _softplus(layer(x))
        x = torch.cat([x, sample_maps(encoded.fine, seen.pixels, height, width)], dim=-1)
        for layer in self.second:
            x = _softplus(layer(x))
        latents = self.latent(x)
        share = (seen.weight / (seen.weight.sum(0) + 1e-6))[..., None]
        mean = (share * latents).sum(0)
        variance = (share * (latents - mean).square()).sum(0)
        return torch.cat([mean, variance], dim=-1)

    def _density(self, fused: Tensor, valid: Bool[Tensor, "n"], noise: float) -> Float[Tensor, "n"]:
        for layer in self.fused:
            fused = _softplus(layer(fused))
        raw = self.density_head(fused)[:, 0]
        if noise > 0:
            raw = raw + noise * torch.randn_like(raw)
        positive = F.softplus(raw) if self.config.density_activation == "softplus" else torch.relu(raw)
        return self.config.density_gain * positive * valid


class BlendingHead(nn.Module):
    """How much of each view's colour a point takes (IBRNet, section 3.2, as KeypointNeRF uses it).

    Args:
        inputs: Numbers that come with each view.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.angle = nn.Parameter(torch.tensor(0.2))
        self.directions = nn.Sequential(nn.Linear(4, 16), nn.ELU(), nn.Linear(16, inputs), nn.ELU())
        self.base = nn.Sequential(nn.Linear(3 * inputs, 64), nn.ELU(), nn.Linear(64, 32), nn.ELU())
        self.seen = nn.Sequential(nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 33), nn.ELU())
        self.gate = nn.Sequential(nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 1), nn.Sigmoid())
        self.out = nn.Sequential(nn.Linear(37, 16), nn.ELU(), nn.Linear(16, 8), nn.ELU(), nn.Linear(8, 1))

    def forward(
        self,
        features: Float[Tensor, "views n inputs"],
        turned: Float[Tensor, "views n 4"],
        usable: Bool[Tensor, "views n"],
    ) -> Float[Tensor, "views n"]:
        """Shares that sum to one over the views.

        Args:
            features: Of each view at each point.
            turned: How each view's direction differs from the wanted one; the last number is the cosine.
            usable: Whether a view may be blended; where none may, all are shared alike.
        """
        features = features + self.directions(turned)
        weight = torch.exp(self.angle.abs() * (turned[..., 3] - 1))
        if len(features) > 2:  # of two views the paper's form would take one alone
            weight = weight - weight.amin(0)
        weight = weight * usable
        weight = (weight / (weight.sum(0) + 1e-8))[..., None]
        mean = (weight * features).sum(0)
        variance = (weight * (features - mean).square()).sum(0)
        common = torch.cat([mean, variance], dim=-1).expand(len(features), -1, -1)
        x = self.base(torch.cat([common, features], dim=-1))
        more = self.seen(weight * x)
        allowed = usable[..., None].float()
        visible = torch.sigmoid(more[..., 32:]) * allowed
        x = x + more[..., :32]
        visible = self.gate(visible * x) * allowed
        logits = self.out(torch.cat([x, visible, turned], dim=-1))[..., 0]
        return torch.softmax(torch.where(usable, logits, torch.full_like(logits, MASKED)), dim=0)


def _normed(inputs: int, outputs: int) -> nn.Module:
    return weight_norm(nn.Linear(inputs, outputs))


def _softplus(x: Tensor) -> Tensor:
    return F.softplus(x, beta=100, threshold=20)
