"""A field on a lattice, evaluated where its surface may be: coarse points, then finer ones where those disagree."""

from typing import Callable, Optional, Tuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def refined_lattice(
    values: Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n"]],
    box: Float[Tensor, "2 3"],
    coarse: int,
    levels: int,
    level_set: float,
    chunk: int = 65536,
    progress: Optional[Callable[[float], None]] = None,
) -> Tuple[Float[Tensor, "x y z"], int]:
    """A field at the (coarse - 1) 2^levels + 1 points along each side of a box, corners included.

    On each finer lattice only points near a change of side among the coarser ones are evaluated; the others are
    interpolated (the scheme of ICON's `Seg3dLossless`). What is thinner than a coarse cell may be lost.

    Args:
        values: The field at world points.
        box: Lower and upper corner, on the device of the result.
        coarse: Points along a side of the first lattice, all of them evaluated.
        levels: How often the lattice is halved.
        level_set: Value on the surface.
        chunk: Points evaluated at once.
        progress: Told the share of levels that are done.

    Returns:
        The values, and how many points were evaluated.
    """
    low, extent = box[0], box[1] - box[0]

    def evaluate(index: Tensor, side: int) -> Tensor:
        points = low + index / (side - 1) * extent
        return torch.cat([values(part) for part in points.split(chunk)]) if len(points) else points[:, 0]

    side = coarse
    axis = torch.arange(side, device=box.device)
    index = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    volume = evaluate(index.float(), side).view(side, side, side)
    count = len(index)
    for level in range(levels):
        if progress is not None:
            progress((level + 1) / (levels + 1))
        solid = (volume > level_set).float()[None, None]
        mixed = F.max_pool3d(solid, 3, 1, 1) + F.max_pool3d(-solid, 3, 1, 1)
        side = 2 * side - 1
        shape = (side, side, side)
        volume = F.interpolate(volume[None, None], shape, mode="trilinear", align_corners=True)[0, 0].contiguous()
        near = F.interpolate(mixed, shape, mode="trilinear", align_corners=True)[0, 0] > 0
        index = torch.nonzero(near)
        volume[near] = evaluate(index.float(), side)
        count += len(index)
    if progress is not None:
        progress(1.0)
    return volume, count
