"""The bounding sphere about the origin: where rays enter and leave it, and coordinates of what lies beyond.

Outside the sphere a point is (x, y, z, s) with a unit direction and the inverse distance s = 1/r, as in NeRF++ (Zhang
et al. 2020, section 4): everything up to infinity lies in a bounded space.
"""

from typing import Tuple

import torch
from jaxtyping import Float
from torch import Tensor

Rays = Float[Tensor, "rays 3"]


def sphere_span(origins: Rays, directions: Rays, radius: float) -> Tuple[Float[Tensor, "rays"], Float[Tensor, "rays"]]:
    """Distances at which rays enter the sphere (0 for those that start inside) and leave it; equal where they miss.

    Args:
        origins: World frame.
        directions: Unit vectors.
        radius: World units.
    """
    middle = -(origins * directions).sum(-1)
    half = torch.sqrt((middle**2 - origins.square().sum(-1) + radius**2).clamp(min=0))
    far = (middle + half).clamp(min=0)
    return torch.minimum((middle - half).clamp(min=0), far), far


def inverted_sphere_points(
    origins: Rays, directions: Rays, radius: float, inverse: Float[Tensor, "rays samples"]
) -> Float[Tensor, "rays samples 4"]:
    """Where rays are at given inverse distances from the origin, as unit direction and inverse distance.

    Args:
        origins: Starts within the sphere, world frame.
        directions: Unit vectors.
        radius: Of the sphere, world units.
        inverse: 1 / distance from the origin, in [0, 1 / radius].
    """
    _, far = sphere_span(origins, directions, radius)
    exit_points = origins + far[:, None] * directions
    nearest = origins - (origins * directions).sum(-1, keepdim=True) * directions
    closeness = nearest.norm(dim=-1, keepdim=True)
    # A ray through the origin turns about no axis, and by no angle either.
    axis = torch.linalg.cross(origins, exit_points)
    axis = axis / axis.norm(dim=-1, keepdim=True).clamp(min=1e-8)
    angle = torch.asin((closeness / radius).clamp(max=1.0)) - torch.asin((closeness * inverse).clamp(max=1.0))
    p, k = exit_points[:, None], axis[:, None]
    cos, sin = torch.cos(angle)[..., None], torch.sin(angle)[..., None]
    dot = (p * k).sum(-1, keepdim=True)
    turned = p * cos + torch.linalg.cross(k.expand(-1, inverse.shape[1], -1), p.expand(-1, inverse.shape[1], -1)) * sin
    turned = turned + k * dot * (1 - cos)
    return torch.cat([torch.nn.functional.normalize(turned, dim=-1), inverse[..., None]], dim=-1)
