"""What several views know about a world point: features where it projects, and whether they see it at all."""

from dataclasses import dataclass
from typing import Literal, Tuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_ext.human.keypoint_encoding import keypoint_box, to_cameras
from nerfstudio_ext.human.subject import SourceViews

HullMode = Literal["all", "majority", "any", "off"]
"""In how many masks a point must be, so that something can be there: the released code demands all."""
SLACK = 0.01
"""A point up to this share of the picture outside of it still counts as seen."""
FADE = 0.1
"""Views lose their say within this share of the picture's border, and of their range of depths."""


@dataclass(frozen=True)
class Seen:
    """How views see world points."""

    pixels: Float[Tensor, "views n 2"]
    valid: Bool[Tensor, "views n"]
    """Inside the picture, before the camera, and in the hull of the masks."""
    weight: Float[Tensor, "views n"]
    """Smooth share of a view in the fusion, 0 at borders."""

    def at(self, where: Bool[Tensor, "n"]) -> "Seen":
        """The same of some of the points."""
        return Seen(self.pixels[:, where], self.valid[:, where], self.weight[:, where])


def sample_maps(
    maps: Float[Tensor, "views channels h w"], pixels: Float[Tensor, "views n 2"], height: int, width: int
) -> Float[Tensor, "views n channels"]:
    """Values of feature maps at pixel positions of pictures of this size, bilinear, constant beyond the border.

    The centre of the first pixel is at 0.5 in pictures and maps alike.
    """
    grid = pixels / pixels.new_tensor([width, height]) * 2 - 1
    values = F.grid_sample(maps, grid[:, None], padding_mode="border", align_corners=False)
    return values[:, :, 0].transpose(1, 2)


def see(
    points: Float[Tensor, "n 3"],
    views: SourceViews,
    masks: Float[Tensor, "views 1 h w"],
    hull: HullMode,
) -> Seen:
    """Project points and ask the masks.

    Args:
        points: World frame, metres.
        views: Cameras and keypoints.
        masks: 1 where the person may be; dilated ones forgive small errors.
        hull: How many masks a point must be in.
    """
    height, width = views.rgb.shape[-2:]
    pixels, depth = views.project(points)
    near, far = depth_range(views)
    place = torch.cat([pixels / pixels.new_tensor([width, height]), ((depth - near) / (far - near))[..., None]], dim=-1)
    inside = ((place[..., :2] > -SLACK) & (place[..., :2] < 1 + SLACK)).all(-1) & (depth >= near)
    # Only points in the picture ask its mask, whose border would otherwise go on for ever.
    masked = inside & (sample_maps(masks, pixels, height, width)[..., 0] > 0.1)
    count = len(masks)
    needed = {"all": count, "majority": count // 2 + 1, "any": 1, "off": 0}[hull]
    in_hull = masked.sum(0) >= needed
    border = torch.minimum(place, 1 - place)
    valid = inside & in_hull
    weight = torch.sigmoid(5 * (border / FADE - 1)).prod(-1) * valid
    return Seen(pixels, valid, weight)


def depth_range(views: SourceViews) -> Tuple[Float[Tensor, "views 1"], Float[Tensor, "views 1"]]:
    """Depths between which the person is, for each view; near is a centimetre before the camera at least.

    The box of the keypoints along the camera's own axes decides, so that it does not matter how the world is turned.
    """
    boxes = torch.stack([keypoint_box(keypoints) for keypoints in to_cameras(views.keypoints, views.world_to_camera)])
    near, far = boxes[:, 0, 2:], boxes[:, 1, 2:]
    return near.clamp(min=0.01), far.clamp(min=0.02)


def dilated(masks: Float[Tensor, "views 1 h w"], share: float) -> Float[Tensor, "views 1 h w"]:
    """Masks grown by this share of the picture's width."""
    radius = round(share * masks.shape[-1])
    return F.max_pool2d(masks, 2 * radius + 1, 1, radius) if radius else masks
