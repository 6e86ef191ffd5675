"""Cameras of scenes that the suite draws itself, and where they stand around an object."""

import math
from typing import List, Literal, Optional, Tuple

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

RigName = Literal["rings", "ring", "hemisphere", "forward"]
ObjectRigName = Literal["rings", "ring", "hemisphere", "forward", "path"]
"""Those, and cameras that the user placed (`camera_path`)."""
FORWARD = math.radians(20)
"""How far the cameras of a forward-facing rig stand from its middle, seen from the origin."""


def look_at_origin(position: Float[Tensor, "views 3"]) -> Float[Tensor, "views 3 4"]:
    """Camera-to-world poses (OpenGL axes: right, up, backward) of cameras that look at the origin; +z is up."""
    backward = torch.nn.functional.normalize(position, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0]).to(backward).expand_as(backward)
    right = torch.nn.functional.normalize(torch.linalg.cross(up, backward), dim=-1)
    return torch.stack([right, torch.linalg.cross(backward, right), backward, position], dim=-1)


def rig_poses(rig: RigName, num_views: int, radius: float) -> Float[Tensor, "views 3 4"]:
    """Poses of a rig at one distance from the origin.

    Args:
        rig: ``rings`` (one 10 and one 40 degrees up), ``ring`` (20 degrees up), ``hemisphere`` (a spiral from the
            horizon to near the zenith) or ``forward`` (a spiral up to 20 degrees about one point, 20 degrees up in the
            direction -y).
        num_views: Cameras in all.
        radius: Distance from the origin in world units.
    """
    if rig == "hemisphere":
        heights = (torch.arange(num_views) + 0.5) / num_views * 0.95
        turns = torch.arange(num_views) * (math.pi * (3 - math.sqrt(5)))
        angles: List[Tuple[float, float]] = [(float(t), math.asin(float(h))) for t, h in zip(turns, heights)]
    elif rig == "forward":
        shares = [math.sqrt((k + 0.5) / num_views) for k in range(num_views)]
        turns = [k * math.pi * (3 - math.sqrt(5)) for k in range(num_views)]
        angles = [
            (-math.pi / 2 + FORWARD * share * math.cos(t) / math.cos(FORWARD), FORWARD + FORWARD * share * math.sin(t))
            for share, t in zip(shares, turns)
        ]
    else:
        elevations = (20.0,) if rig == "ring" else (10.0, 40.0)
        angles = []
        for level, elevation in enumerate(elevations):
            count = len(range(level, num_views, len(elevations)))
            # The upper ring stands in the gaps of the lower one.
            turns = [2 * math.pi * (k + 0.5 * level) / count for k in range(count)]
            angles += [(turn, math.radians(elevation)) for turn in turns]
    positions = [
        (radius * math.cos(turn) * math.cos(up), radius * math.sin(turn) * math.cos(up), radius * math.sin(up))
        for turn, up in angles
    ]
    return look_at_origin(torch.tensor(positions))


def square_cameras(
    poses: Float[Tensor, "views 3 4"], focal: float, side: int, times: Optional[Float[Tensor, "views 1"]] = None
) -> Cameras:
    """Pinhole cameras of square pictures, their principal point in the middle; focal length and side in pixels."""
    return Cameras(
        camera_to_worlds=poses,
        fx=focal,
        fy=focal,
        cx=side / 2,
        cy=side / 2,
        width=side,
        height=side,
        camera_type=CameraType.PERSPECTIVE,
        times=times,
    )
