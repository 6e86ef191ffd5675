"""Sparse 3-D convolution without a compiled extension: neighbour tables, one gather and one matrix product per layer.

Alphabet: a *site* is an active voxel, with integer coordinates in (z, y, x) order; sites of a level are sorted by their
linear key. A *table* [M, 27] holds for each output site the rows of the inputs under its 3x3x3 kernel (z slowest, x
fastest), and the number of input sites where there is none. Tables depend on coordinates only.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, List, Literal, Tuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Shape = Tuple[int, int, int]
NormName = Literal["batch", "layer"]


@dataclass(frozen=True)
class SparseTables:
    """What a tower needs to know of one set of points: five levels, each half as fine as the one before."""

    site_of_point: Int[Tensor, "points"]
    """Row of level 0 that each point falls into."""
    same: List[Int[Tensor, "sites 27"]]
    """Per level, neighbours within the level."""
    down: List[Int[Tensor, "sites 27"]]
    """From level l to l + 1: inputs around twice the output's coordinates."""
    rows: List[Int[Tensor, "z y x"]]
    """Per level, the row of the site in each voxel, the number of sites where there is none; with a rim of one empty
    voxel on every side, so that neighbours need no bounds."""
    counts: Tuple[int, ...]
    """Sites per level."""


def build_tables(coords: Int[Tensor, "points 3"], shape: Shape, levels: int = 5) -> SparseTables:
    """Sites and neighbour tables of points on a grid.

    Args:
        coords: Voxel of each point; several points may share one.
        shape: Voxels of the finest level along z, y and x.
        levels: Resolutions, the finest included.
    """
    keys, site_of_point = torch.unique(_keys(coords.long(), shape), return_inverse=True)
    same, down, rows, counts = [], [], [], []
    for level in range(levels):
        sites = _coords(keys, shape)
        count = len(keys)
        grid = torch.full([n + 2 for n in shape], count, dtype=torch.int32, device=keys.device)
        grid[tuple((sites + 1).unbind(1))] = torch.arange(count, dtype=torch.int32, device=keys.device)
        same.append(_neighbours(grid, sites))
        rows.append(grid)
        counts.append(count)
        if level == levels - 1:
            break
        coarse: Shape = tuple((n - 1) // 2 + 1 for n in shape)  # type: ignore
        halves = torch.stack([sites // 2, -(-sites // 2)], dim=0)
        picks = torch.cartesian_prod(*[torch.arange(2, device=keys.device)] * 3)
        candidates = torch.stack([halves[picks[:, axis], :, axis] for axis in range(3)], dim=-1).reshape(-1, 3)
        candidates = candidates[(candidates < torch.tensor(coarse, device=keys.device)).all(dim=1)]
        keys = torch.unique(_keys(candidates, coarse))
        down.append(_neighbours(grid, 2 * _coords(keys, coarse)))
        shape = coarse
    return SparseTables(site_of_point, same, down, rows, tuple(counts))


def _keys(coords: Int[Tensor, "n 3"], shape: Shape) -> Int[Tensor, "n"]:
    return (coords[:, 0] * shape[1] + coords[:, 1]) * shape[2] + coords[:, 2]


def _coords(keys: Int[Tensor, "n"], shape: Shape) -> Int[Tensor, "n 3"]:
    return torch.stack([keys // (shape[1] * shape[2]), keys // shape[2] % shape[1], keys % shape[2]], dim=-1)


def _neighbours(grid: Int[Tensor, "z y x"], centres: Int[Tensor, "n 3"]) -> Int[Tensor, "n 27"]:
    """Rows of a level in the 3x3x3 window about each centre, which lies inside the rim."""
    return grid.view(-1)[_places(grid, centres)[:, None] + _steps(grid, -1, 2)]


def _places(grid: Int[Tensor, "z y x"], coords: Int[Tensor, "n 3"]) -> Int[Tensor, "n"]:
    """Where voxels lie in a flattened grid with a rim."""
    return ((coords[:, 0] + 1) * grid.shape[1] + coords[:, 1] + 1) * grid.shape[2] + coords[:, 2] + 1


def _steps(grid: Int[Tensor, "z y x"], low: int, high: int) -> Int[Tensor, "cubed"]:
    """From a voxel to those around it in a flattened grid, z slowest."""
    z, y, x = torch.cartesian_prod(*[torch.arange(low, high, device=grid.device)] * 3).unbind(1)
    return (z * grid.shape[1] + y) * grid.shape[2] + x


def scatter_mean(values: Float[Tensor, "points channels"], site: Int[Tensor, "points"], count: int) -> Tensor:
    """Mean of the values of all points in each site."""
    total = values.new_zeros(count, values.shape[1]).index_add(0, site, values)
    number = values.new_zeros(count).index_add(0, site, torch.ones_like(values[:, 0]))
    return total / number[:, None]


def sample(
    features: Float[Tensor, "sites channels"], grid: Int[Tensor, "z y x"], position: Float[Tensor, "n 3"]
) -> Float[Tensor, "n channels"]:
    """Trilinear interpolation of a level, zero where it has no site.

    Args:
        features: One row per site.
        grid: Row of the site in each voxel, with a rim.
        position: In voxels of this level, (z, y, x) order; voxel centres are integers.
    """
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    # On the rim a position has no share in any voxel inside, so clamping to it changes nothing.
    limits = torch.tensor(grid.shape, device=grid.device) - 2
    position = torch.minimum(position.clamp(min=-1), limits.to(position))
    low = torch.minimum(torch.floor(position).long(), limits - 1)
    share = position - low
    z, y, x = torch.stack([1 - share, share], dim=-1).unbind(1)
    weights = (z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]).flatten(1)
    corners = _places(grid, low)[:, None] + _steps(grid, 0, 2)
    rows = grid.view(-1).index_select(0, corners.view(-1)).view(-1, 8)
    return F.embedding_bag(rows, padded, per_sample_weights=weights.to(padded), mode="sum")


def dilate(grid: Int[Tensor, "z y x"], missing: int, radius: int) -> Bool[Tensor, "z y x"]:
    """Voxels no further than this many (along each axis) from a site; the rim stays empty."""
    occupied = (grid != missing)[1:-1, 1:-1, 1:-1].float()[None, None]
    # One axis after the other: a cube is the product of three lines.
    for axis in range(3):
        window, padding = [1, 1, 1], [0, 0, 0]
        window[axis], padding[axis] = 2 * radius + 1, radius
        occupied = F.max_pool3d(occupied, window, 1, padding)
    return F.pad(occupied[0, 0] > 0, [1] * 6)


def flagged(flags: Bool[Tensor, "z y x"], position: Float[Tensor, "n 3"]) -> Bool[Tensor, "n"]:
    """Whether the voxel nearest to each position has a flag, in a grid with a rim; never outside."""
    limits = torch.tensor(flags.shape, device=flags.device) - 2
    nearest = torch.minimum(position.round().clamp(min=-1), limits.to(position)).to(torch.int32)
    return flags.view(-1).index_select(0, _places(flags, nearest))


class _SameSites(torch.autograd.Function):
    """Convolution from a level to itself, whose gradient is one as well.

    Site i is the neighbour k of site o exactly where o is the neighbour 26 - k of i. So the gradient of the features is
    a gather with the same table and the kernel turned about, which is quicker than scattering.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, table: Tensor) -> Tensor:
        gathered = _gather(features, table)
        ctx.save_for_backward(gathered, weight, table)
        return gathered @ weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tuple[Tensor, Tensor, None]:
        gathered, weight, table = ctx.saved_tensors
        turned = weight.view(27, -1, weight.shape[1]).flip(0).transpose(1, 2).reshape(27 * weight.shape[1], -1)
        return _gather(gradient, table) @ turned, gathered.T @ gradient, None


def _gather(features: Float[Tensor, "rows channels"], table: Int[Tensor, "sites 27"]) -> Tensor:
    """Features under each site's kernel [sites, 27 channels], zero where there are none. An embedding is quicker than
    indexing, and so is its gradient."""
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    return F.embedding(table, padded).flatten(1)


class SparseConv(nn.Module):
    """3x3x3 convolution without bias over a table, then normalisation over the sites alone, then ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: NormName) -> None:
        super().__init__()
        # As torch initialises a dense kernel: kaiming-uniform with a = sqrt(5) is 1 / sqrt(fan in).
        bound = (27 * inputs) ** -0.5
        self.weight = nn.Parameter(torch.empty(27 * inputs, outputs).uniform_(-bound, bound))
        self.norm = nn.BatchNorm1d(outputs, eps=1e-3, momentum=0.01) if norm == "batch" else nn.LayerNorm(outputs)

    def convolve(
        self, features: Float[Tensor, "rows inputs"], table: Int[Tensor, "sites 27"], same: bool = False
    ) -> Float[Tensor, "sites outputs"]:
        """The convolution alone; `same` says that the table leads from a level to itself."""
        if same:
            return cast(Tensor, _SameSites.apply(features, self.weight, table))
        return _gather(features, table) @ self.weight

    def forward(
        self, features: Float[Tensor, "rows inputs"], table: Int[Tensor, "sites 27"], same: bool = False
    ) -> Float[Tensor, "sites outputs"]:
        return torch.relu(self.norm(self.convolve(features, table, same)))


class SparseTower(nn.Module):
    """Structured latent codes diffused into the space around them, at four resolutions (Neural Body, section 3.2).

    Args:
        inputs: Channels of the codes.
        channels: Of the levels 1/2, 1/4, 1/8 and 1/16.
        norm: Over the sites of a frame (batch) or the channels of a site (layer).
    """

    def __init__(self, inputs: int, channels: Tuple[int, int, int, int], norm: NormName) -> None:
        super().__init__()
        self.first = nn.ModuleList(SparseConv(inputs, inputs, norm) for _ in range(2))
        widths = (inputs, *channels)
        self.down = nn.ModuleList(SparseConv(a, b, norm) for a, b in pairwise(widths))
        repeats = (2, 3, 3, 3)
        self.same = nn.ModuleList(
            nn.ModuleList(SparseConv(width, width, norm) for _ in range(times))
            for width, times in zip(channels, repeats)
        )

    def forward(self, codes: Float[Tensor, "points inputs"], tables: SparseTables) -> List[Tensor]:
        """Features [sites, channels] of the four coarser levels."""
        x = scatter_mean(codes, tables.site_of_point, tables.counts[0])
        for layer in self.first:
            x = layer(x, tables.same[0], same=True)
        volumes = []
        for level, (down, layers) in enumerate(zip(self.down, self.same)):
            x = down(x, tables.down[level])
            for layer in cast(nn.ModuleList, layers):
                x = layer(x, tables.same[level + 1], same=True)
            volumes.append(x)
        return volumes
