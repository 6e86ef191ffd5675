"""A body's vertices over a picture, to see whether the two agree."""

import math

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

COLOUR = (1.0, 0.35, 0.85)
SPACING = 0.006
"""Metres; about half of what lies between neighbouring vertices."""


def lay_over(
    rgb: Float[Tensor, "height width 3"], vertices: Float[Tensor, "vertices 3"], camera: Cameras
) -> Float[Tensor, "height width 3"]:
    """The picture with the vertices as small squares over it, the near ones brighter.

    Args:
        rgb: In [0, 1].
        vertices: World frame, metres.
        camera: A single camera without distortion; its pictures may have been rendered in another size.
    """
    height, width = rgb.shape[:2]
    camera = camera.to(rgb.device)
    pose = camera.camera_to_worlds.reshape(-1, 3, 4)[0]
    local = (vertices.to(rgb) - pose[:, 3]) @ pose[:, :3]
    local = local[-local[:, 2] > 0.05]
    if len(local) == 0:
        return rgb
    depth = -local[:, 2]
    ratio = width / float(camera.width.flatten()[0])
    fx, fy, cx, cy = (float(x.flatten()[0]) * ratio for x in (camera.fx, camera.fy, camera.cx, camera.cy))
    x, y = fx * local[:, 0] / depth + cx, cy - fy * local[:, 1] / depth
    reach = min(8, math.ceil(fx * SPACING / float(depth.median())))
    steps = torch.cartesian_prod(torch.arange(-reach, reach + 1), torch.arange(-reach, reach + 1)).to(rgb.device)
    columns = (x.clamp(-1e6, 1e6).floor().long()[:, None] + steps[:, 0]).flatten()
    rows = (y.clamp(-1e6, 1e6).floor().long()[:, None] + steps[:, 1]).flatten()
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    nearest = rgb.new_full((height * width,), math.inf)
    places = (rows * width + columns)[inside]
    nearest = nearest.scatter_reduce(0, places, depth.repeat_interleave(len(steps))[inside], "amin").view(
        height, width, 1
    )
    low, high = depth.min(), depth.max()
    shade = 1 - 0.7 * ((nearest - low) / (high - low).clamp(min=1e-3)).clamp(0, 1)
    return torch.where(torch.isfinite(nearest), 0.4 * rgb + 0.6 * shade * rgb.new_tensor(COLOUR), rgb)
