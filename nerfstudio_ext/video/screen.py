"""Where the video stands in the scene: an upright screen through the world origin, seen by the dataset camera."""

import math
from typing import Dict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

SCREEN_WIDTH = 0.5
"""Width of the screen in world units; its height follows from the frame's aspect."""


def screen_camera_to_world() -> Float[Tensor, "3 4"]:
    """Pose of the dataset camera (OpenGL axes, camera to world), whose picture the screen fills exactly.

    The screen is centred on the origin, stands upright (+z is up) and faces (1, 1, 0), where the viewer's visitor
    starts. The camera's focal length is one frame width, so it stands one screen width away.
    """
    side = math.sqrt(0.5)
    right, up, backward = (-side, side, 0.0), (0.0, 0.0, 1.0), (side, side, 0.0)
    position = tuple(SCREEN_WIDTH * x for x in backward)
    return torch.tensor([right, up, backward, position]).T.contiguous()


def view_screen(
    camera: Cameras, pictures: Dict[str, Float[Tensor, "channels height width"]]
) -> Dict[str, Float[Tensor, "view_height view_width channels"]]:
    """What a camera sees of the screen; black and transparent beside it.

    The dataset camera gets every picture back pixel for pixel. Views that show the screen smaller than its pictures see
    them averaged first, so that they do not flicker.

    Args:
        camera: One perspective camera, world frame.
        pictures: Maps of one size to show on the screen; ``rgb`` must be first.

    Returns:
        ``rgb``, ``accumulation``, ``depth`` (distance along the unit ray in world units, 0 beside the screen), then the
        other pictures.
    """
    height, width = next(iter(pictures.values())).shape[-2:]
    bundle = camera.reshape(()).generate_rays(camera_indices=0, keep_shape=True)
    pose = screen_camera_to_world().to(bundle.origins)
    right, up, facing = pose[:, 0], pose[:, 1], pose[:, 2]

    distance = -(bundle.origins @ facing) / (bundle.directions @ facing)
    points = bundle.origins + distance[..., None] * bundle.directions
    pixel = SCREEN_WIDTH / width
    columns = (points @ right) / pixel + width / 2 - 0.5
    rows = height / 2 - (points @ up) / pixel - 0.5
    inside = (distance > 0) & (columns.abs() <= 1e6) & (rows.abs() <= 1e6)
    inside &= (columns >= -0.5) & (columns <= width - 0.5) & (rows >= -0.5) & (rows <= height - 0.5)

    # Rays of the dataset camera meet pixel centres up to rounding; those pictures are handed back as they are.
    exact = bool(((columns - columns.round()).abs() + (rows - rows.round()).abs() < 1e-2).all() and inside.all())
    if exact:
        columns, rows = columns.round(), rows.round()
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    step = _pixels_per_ray(columns, rows, inside)

    views = {}
    for name, picture in pictures.items():
        if exact:
            views[name] = picture[:, rows.long(), columns.long()].permute(1, 2, 0)
        else:
            views[name] = _sample(picture, grid, inside, step)
        if name == "rgb":
            views["accumulation"] = inside[..., None].to(picture)
            views["depth"] = torch.where(inside, distance, torch.zeros_like(distance))[..., None]
    return views


def _pixels_per_ray(columns: Tensor, rows: Tensor, inside: Tensor) -> float:
    """Median distance in picture pixels between neighbouring rays on the screen; 1 where too few rays hit it."""
    neighbours = inside[:, 1:] & inside[:, :-1]
    if not neighbours.any():
        return 1.0
    steps = torch.hypot(columns[:, 1:] - columns[:, :-1], rows[:, 1:] - rows[:, :-1])
    return float(steps[neighbours].median())


def _sample(picture: Tensor, grid: Tensor, inside: Tensor, step: float) -> Float[Tensor, "height width channels"]:
    if step > 1.5:
        size = [max(1, round(side / step)) for side in picture.shape[-2:]]
        picture = F.interpolate(picture[None], size, mode="area")[0]
    sampled = F.grid_sample(picture[None], grid[None].to(picture), padding_mode="border", align_corners=False)[0]
    return torch.where(inside[..., None], sampled.permute(1, 2, 0), 0.0)
