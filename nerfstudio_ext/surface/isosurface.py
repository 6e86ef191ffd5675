"""Zero levels of signed distances and densities as triangle meshes, on CPU and CUDA: evaluate coarsely, refine nearby.

Grid points are evaluated in blocks. A block whose centre is so far from the surface that none can pass through it is
filled with the centre's value; the rest is evaluated in full. The mesh is that of the dense grid wherever the field's
slope stays below `SLOPE`.
"""

from typing import Callable, Tuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.surface.mesh import Mesh

Values = Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n"]]
"""A field: negative inside the object, world units of the trained frame."""

BLOCK = 8
SLOPE = 1.5
"""Learned distances are not exact: a block is skipped only if this much slope could not bring the surface into it."""


@torch.no_grad()
def extract_mesh(
    values: Values,
    resolution: int,
    half_side: float,
    device: torch.device,
    chunk: int = 65536,
    coarse: bool = True,
) -> Tuple[Mesh, int]:
    """Zero level of a field within the cube [-half_side, half_side]^3.

    Args:
        values: The field.
        resolution: Grid points along each side.
        half_side: World units of the trained frame.
        device: Where points are evaluated.
        chunk: Points evaluated at once.
        coarse: Skip blocks far from the surface; otherwise evaluate every grid point.

    Returns:
        The mesh without colours, and how many points were evaluated.

    Raises:
        InputError: The field has no zero crossing in the cube; the message gives its range.
    """
    from skimage.measure import marching_cubes

    volume, evaluated = _fill(values, resolution, half_side, device, chunk, coarse)
    low, high = float(volume.min()), float(volume.max())
    if not low < 0 < high:
        raise InputError(
            f"There is no surface to export: the field runs from {low:.4g} to {high:.4g} in the cube of half side "
            f"{half_side:g} and never changes its sign; train longer, or give a larger --half-side."
        )
    verts, faces, _, _ = marching_cubes(volume, 0.0)
    return Mesh((verts * (2 * half_side / (resolution - 1)) - half_side).astype(np.float32), faces), evaluated


def _fill(
    values: Values, resolution: int, half_side: float, device: torch.device, chunk: int, coarse: bool
) -> Tuple[Float[np.ndarray, "x y z"], int]:
    """The field on the grid, and the number of points evaluated."""
    axis = torch.linspace(-half_side, half_side, resolution)

    def evaluate(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        return torch.cat([values(part.to(device)).float().cpu() for part in points.split(chunk)])

    if not coarse or resolution < 4 * BLOCK:
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
        return evaluate(grid).reshape((resolution,) * 3).numpy(), len(grid)

    # Block centres decide; a block holds BLOCK^3 grid points and reaches half a cell beyond them.
    count = -(-resolution // BLOCK)
    step = float(axis[1] - axis[0])
    centres = -half_side + step * (torch.arange(count) * BLOCK + (BLOCK - 1) / 2)
    coarse_grid = torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij"), dim=-1).reshape(-1, 3)
    coarse_values = evaluate(coarse_grid)
    reach = SLOPE * step * (BLOCK / 2 + 0.5) * 3**0.5
    near = torch.nonzero(coarse_values.abs() <= reach).flatten()
    # Blocks beside a change of sign are refined as well: thin walls may hide between two centres.
    signs = (coarse_values > 0).float().reshape(1, 1, count, count, count)
    mixed = torch.nn.functional.max_pool3d(signs, 3, 1, 1) != -torch.nn.functional.max_pool3d(-signs, 3, 1, 1)
    near = torch.unique(torch.cat([near, torch.nonzero(mixed.flatten()).flatten()]))

    volume = coarse_values.reshape(count, 1, count, 1, count, 1).repeat(1, BLOCK, 1, BLOCK, 1, BLOCK)
    blocks = volume.permute(0, 2, 4, 1, 3, 5).reshape(-1, BLOCK**3).contiguous()
    offset = step * (torch.arange(BLOCK) - (BLOCK - 1) / 2)
    offsets = torch.stack(torch.meshgrid(offset, offset, offset, indexing="ij"), dim=-1).reshape(-1, 3)
    for part in near.split(max(1, chunk // BLOCK**3)):
        points = coarse_grid[part, None] + offsets
        blocks[part] = evaluate(points.reshape(-1, 3)).reshape(-1, BLOCK**3)
    shape = (count, count, count, BLOCK, BLOCK, BLOCK)
    full = blocks.reshape(shape).permute(0, 3, 1, 4, 2, 5).reshape((count * BLOCK,) * 3)
    evaluated = len(coarse_grid) + len(near) * BLOCK**3
    return full[:resolution, :resolution, :resolution].numpy(), evaluated
