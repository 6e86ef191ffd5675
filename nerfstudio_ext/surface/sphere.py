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


def beyond(origins: Rays, directions: Rays, radius: float) -> Float[Tensor, "rays 1"]:
    """Least distance from the origin, no less than the radius, from which on rays only move away from it: that of their
    closest approach where they pass the sphere by, that of their start where they look away from it."""
    along = (origins * directions).sum(-1, keepdim=True)
    nearest = origins - along.clamp(max=0) * directions
    return nearest.norm(dim=-1, keepdim=True).clamp(min=radius)


def inverted_sphere_points(
    origins: Rays, directions: Rays, inverse: Float[Tensor, "rays samples"]
) -> Float[Tensor, "rays samples 4"]:
    """Where rays are at given inverse distances from the origin, as unit direction and inverse distance.

    Args:
        origins: World frame.
        directions: Unit vectors.
        inverse: 1 / distance from the origin, in [0, 1 / distance of the closest approach]; points lie behind that.
    """
    nearest = origins - (origins * directions).sum(-1, keepdim=True) * directions
    closeness = nearest.norm(dim=-1, keepdim=True)
    # A point is its closest approach and a leg along the ray; divided by the distance, also for infinite ones.
    leg = (1 - (closeness * inverse).square()).clamp(min=0).sqrt()
    sideways = inverse[..., None] * nearest[:, None]
    return torch.cat([sideways + leg[..., None] * directions[:, None], inverse[..., None]], dim=-1)
