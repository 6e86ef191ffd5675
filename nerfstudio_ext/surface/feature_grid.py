"""Trained features on grids of several sizes, interpolated between their points.

As in Instant NGP (Mueller et al. 2022), but dense: no two points share an entry, and memory grows with the cube of the
size. Where warp-lang is installed its kernels do the work; the function here is the same in plain torch.
"""

from functools import cache
from importlib.util import find_spec
from typing import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn

from nerfstudio_ext.engine.errors import InputError

FEATURES = 4
"""Features of each grid; the kernels read them as one vector."""

Interpolate = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def interpolate(
    x: Float[Tensor, "n 3"],
    table: Float[Tensor, "rows 4"],
    sizes: Int[Tensor, "grids"],
    starts: Int[Tensor, "grids"],
) -> Float[Tensor, "n width"]:
    """Features of every grid at points, trilinear between the eight corners of their cells.

    Args:
        x: Points; those outside the cube [-1, 1]^3 take what its boundary has.
        table: Features of all grids' points, the last axis of space running fastest.
        sizes: Points along each grid's side.
        starts: First row of each grid.
    """
    size = sizes[:, None]
    p = (x.clamp(-1, 1) + 1)[:, None] * ((size - 1) / 2)
    # What is no number stays so in the shares; as an index it would be outside of the table.
    low = torch.minimum(p.detach().nan_to_num().floor().long(), size - 2)
    share = torch.stack([1 - (p - low), p - low], dim=-1)
    x_share, y_share, z_share = share.unbind(2)
    weights = (x_share[..., :, None, None] * y_share[..., None, :, None] * z_share[..., None, None, :]).flatten(2)
    corners = torch.cartesian_prod(*[torch.arange(2, device=x.device)] * 3)
    at = low[:, :, None] + corners
    rows = starts[:, None] + (at[..., 0] * size + at[..., 1]) * size + at[..., 2]
    return (F.embedding(rows, table) * weights[..., None]).sum(2).flatten(1)


@cache
def fastest_interpolate(device: str) -> Interpolate:
    """Warp's kernels where they serve this kind of device, otherwise the function above, and a line."""
    reason = "the extra `kernels` (warp-lang) is not installed"
    if find_spec("warp") is not None:
        try:
            from nerfstudio_ext.surface import feature_grid_kernels as kernels

            kernels.require(device)
            return kernels.interpolate
        except (ImportError, AttributeError, RuntimeError) as error:
            reason = f"warp-lang does not serve this machine ({error})"
    CONSOLE.print(f"Grids are interpolated in plain torch, which is slower: {reason}.", soft_wrap=True, highlight=False)
    return interpolate


class FeatureGrid(nn.Module):
    """Grids that fill the cube [-radius, radius]^3.

    Args:
        sizes: Points along each grid's side, 2 at least.
        radius: Half the cube's side, above 0.

    Raises:
        InputError: A size or the radius is too small.
    """

    sizes: Tensor
    starts: Tensor

    def __init__(self, sizes: Sequence[int], radius: float) -> None:
        super().__init__()
        if min(sizes) < 2:
            raise InputError(
                f"--pipeline.model.field.grid-sizes {' '.join(map(str, sizes))} must each be 2 at least, as 16 32 64."
            )
        if not radius > 0:
            raise InputError(f"--pipeline.model.field.grid-radius {radius:g} must be above 0.")
        self.radius, self.width = radius, FEATURES * len(sizes)
        rows = torch.tensor([0] + [size**3 for size in sizes]).cumsum(0)
        # Nearly nothing at first: a distance network keeps the sphere that it begins with.
        self.table = nn.Parameter(torch.empty(int(rows[-1]), FEATURES).uniform_(-1e-4, 1e-4))
        self.register_buffer("sizes", torch.tensor(sizes, dtype=torch.int32), persistent=False)
        self.register_buffer("starts", rows[:-1].to(torch.int32), persistent=False)

    def forward(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        run = fastest_interpolate(x.device.type) if x.dtype == torch.float32 else interpolate
        return run(x / self.radius, self.table, self.sizes, self.starts)
