"""Occupancy of a clothed person from one photograph and 3-D keypoints (KeypointICON: ICON with the relative spatial
encoding of KeypointNeRF in place of the signed distance to a body)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Literal, Tuple, Type

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.configs.base_config import InstantiateConfig
from torch import Tensor, nn

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human import body_surface
from nerfstudio_ext.human.body_surface import BodySurface
from nerfstudio_ext.human.keypoint_encoding import EncodingMode, encode_points, encoded_width
from nerfstudio_ext.human.normal_nets import NormalEncoder, SideNet, keypoint_heat, unit_normals
from nerfstudio_ext.human.photo import Photo, Sides

DEFAULT_WEIGHTS = Path(__file__).with_name("keypoint_icon_tiny.safetensors")
"""Weights of `keypoint-icon-tiny` that come with the suite; the file's header says how they were made."""


@dataclass
class KeypointIconFieldConfig(InstantiateConfig):
    """Architecture; the defaults are those of the released configuration."""

    _target: Type = field(default_factory=lambda: KeypointIconField)
    side_width: int = 64
    """Channels of the networks that draw the two sides, at the whole resolution."""
    side_halvings: int = 4
    """Halvings in these networks."""
    side_blocks: int = 9
    """Residual blocks in these networks."""
    side_shortcuts: bool = False
    """Add what was on the way down on the way up in these networks."""
    stem: int = 64
    """Channels of the encoder's first convolution."""
    hourglass_width: int = 256
    """Channels of the encoder's hourglasses."""
    hourglass_depth: int = 2
    """Halvings in an hourglass."""
    stacks: int = 2
    """Hourglasses; training looks at what each one finds, evaluation at the last only."""
    features: int = 6
    """Channels of the features of each side."""
    raw_normals: bool = False
    """Show the points the normals of both sides and the mask as they are, too; small maps of features need it."""
    visibility: Literal["both", "depth", "mesh", "mean"] = "both"
    """Sides that a point sees: both, or the near one in front of the keypoints around it (depth) or where the nearest
    skin of the body is visible (mesh, as published) and else the far one, or the mean of both (what choosing must
    beat)."""
    encoding: Literal[EncodingMode, "body"] = "rel_z_decay"
    """Where a point is: relative to the keypoints (the method's), z (PIFu's: depth from the middle of the keypoints,
    alone), body (ICON's signed distance, normal and part of a body without clothes), or another encoding."""
    octaves: int = 1
    """Frequencies of the encoding."""
    sigma: float = 0.2
    """Reach of a keypoint, metres (0.2 of the paper's cube of 1.02 m a unit)."""
    widths: Tuple[int, int, int] = (512, 256, 128)
    """Hidden layers of the point network; the second and the third see its inputs again."""


@dataclass(frozen=True)
class EncodedPhoto:
    """Photographs as points read them."""

    photo: Photo
    sides: Sides
    maps: List[Float[Tensor, "batch channels h w"]]
    """Near and far features of each stack, side by side."""


class KeypointIconField(nn.Module):
    """Draws both sides, encodes them, and reads them at points.

    Args:
        config: Architecture.
        num_keypoints: How many keypoints people have.
    """

    def __init__(self, config: KeypointIconFieldConfig, num_keypoints: int) -> None:
        super().__init__()
        self.config = config
        sizes = (config.side_width, config.side_halvings, config.side_blocks, num_keypoints)
        self.near_side = SideNet(*sizes, 3, config.side_shortcuts)
        # The far side's colours are ours: the published method leaves them to the user.
        self.far_side = SideNet(*sizes, 6, config.side_shortcuts)
        self.encoder = NormalEncoder(
            config.stem, config.hourglass_width, config.hourglass_depth, config.stacks, config.features
        )
        local = config.features * (2 if config.visibility == "both" else 1) + (7 if config.raw_normals else 0)
        code = body_surface.WIDTH
        if config.encoding != "body":
            code = encoded_width(config.encoding, num_keypoints, config.octaves)
        inputs = local + code
        a, b, c = config.widths
        self.layers = nn.ModuleList(
            [nn.Linear(inputs, a), nn.Linear(a, b), nn.Linear(b + inputs, c), nn.Linear(c + inputs, 1)]
        )

    def side_parameters(self) -> List[nn.Parameter]:
        """Of the networks that draw the sides; they are trained first."""
        return [*self.near_side.parameters(), *self.far_side.parameters()]

    def point_parameters(self) -> List[nn.Parameter]:
        """Of all that reads the sides."""
        return [*self.encoder.parameters(), *self.layers.parameters()]

    def sides(self, photo: Photo) -> Sides:
        """Both sides of people as their photographs suggest them."""
        local = photo.camera.local(photo.keypoints)
        depths = local[..., 2] - local[..., 2].mean(1, keepdim=True)
        size = photo.rgb.shape[-1] // 2**self.config.side_halvings
        heat = keypoint_heat(photo.camera.project(local), depths, size)
        pictures = photo.rgb * 2 - photo.mask
        near, far = self.near_side(pictures, heat), self.far_side(pictures, heat)
        return Sides(
            unit_normals(torch.tanh(near), photo.mask),
            unit_normals(torch.tanh(far[:, :3]), photo.mask),
            torch.sigmoid(far[:, 3:]) * photo.mask,
        )

    def encode(self, photo: Photo, sides: Sides) -> EncodedPhoto:
        """Features of both sides, from one encoder."""
        batch = len(photo.mask)
        found = self.encoder(torch.cat([sides.normals, sides.back_normals]))
        return EncodedPhoto(photo, sides, [torch.cat([x[:batch], x[batch:]], dim=1) for x in found])

    def logits(self, encoded: EncodedPhoto, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "stacks batch n"]:
        """What goes into the sigmoid whose value is the occupancy, of each stack; world points, metres."""
        photo, config = encoded.photo, self.config
        local = photo.camera.local(points)
        places = photo.camera.project(local)
        code = self._code(photo, points)
        raw = []
        if config.raw_normals:
            raw = [_read(torch.cat([encoded.sides.normals, encoded.sides.back_normals, photo.mask], dim=1), places)]
        near = None
        if config.visibility == "depth":
            near = self._in_front(photo, points, local)
        elif config.visibility == "mesh":
            cameras = (photo.camera[torch.tensor([k])] for k in range(len(points)))
            near = torch.stack([body.seen(p, c) for body, p, c in zip(_bodies(photo), points, cameras)])
        outputs = []
        for maps in encoded.maps if self.training else encoded.maps[-1:]:
            features = _read(maps, places)
            sides = features.unflatten(-1, (2, -1))
            if near is not None:
                features = torch.where(near[..., None], sides[..., 0, :], sides[..., 1, :])
            elif config.visibility == "mean":
                features = sides.mean(-2)
            inputs = torch.cat([features, *raw, code], dim=-1)
            value = inputs
            for k, layer in enumerate(self.layers):
                value = layer(value if k < 2 else torch.cat([value, inputs], dim=-1))
                value = F.leaky_relu(value, 0.01) if k < 3 else value
            outputs.append(value[..., 0])
        return torch.stack(outputs)

    def _code(self, photo: Photo, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n width"]:
        """Where points are."""
        config, motions = self.config, photo.camera.world_to_camera
        if config.encoding == "body":
            return torch.stack([body.features(p, c) for body, p, c in zip(_bodies(photo), points, motions)])
        if config.encoding == "z":
            # From the middle of the person: how far away the camera stands says nothing about the shape.
            depths = photo.camera.local(photo.keypoints)[..., 2].mean(1)
            motions = torch.cat([motions[:, :2], motions[:, 2:] - F.pad(depths[:, None, None], (3, 0))], dim=1)
        return torch.stack([
            encode_points(p, k, c[None], config.encoding, config.octaves, config.sigma)[0]
            for p, k, c in zip(points, photo.keypoints, motions)
        ])  # fmt: skip

    def _in_front(
        self, photo: Photo, points: Float[Tensor, "batch n 3"], local: Float[Tensor, "batch n 3"]
    ) -> Float[Tensor, "batch n"]:
        """Whether points are nearer to the camera than the keypoints around them."""
        depths = photo.camera.local(photo.keypoints)[..., 2]
        squares = torch.cdist(points, photo.keypoints).square()
        # The weights of the encoding, but adding up to 1, however far away the keypoints are.
        weights = torch.softmax(-squares / (2 * self.config.sigma**2), dim=-1)
        return local[..., 2] < (weights * depths[:, None]).sum(-1)


def _bodies(photo: Photo) -> Tuple[BodySurface, ...]:
    if photo.bodies is None:
        raise InputError(
            "This network reads a body without clothes (encoding body or visibility mesh), which only drawn people "
            "bring, with --pipeline.datamanager.bodies True: train with keypoints instead for a photo of your own."
        )
    return photo.bodies


def _read(maps: Float[Tensor, "batch channels h w"], places: Float[Tensor, "batch n 2"]) -> Float[Tensor, "batch n c"]:
    """Values of maps at places from -1 to 1."""
    return F.grid_sample(maps, places[:, None], align_corners=False, padding_mode="border")[:, :, 0].transpose(1, 2)
