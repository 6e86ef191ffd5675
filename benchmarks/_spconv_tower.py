"""The tower of Neural Body in the package `spconv`, with the weights of ours: what both are compared by.

`spconv` is optional: `pip install --target FOLDER --no-deps spconv cumm pccm ccimport pybind11 fire lark portalocker
termcolor`, and FOLDER in PYTHONPATH (with its dependencies pip would exchange numpy and others). Its kernels are
[output, z, y, x, input] and it orders the sites of a strided convolution as it likes.
"""

import importlib.util
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Iterator, List, Tuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nerfstudio_ext.human.sparse_conv import SparseConv, SparseTables, SparseTower, scatter_mean


def installed() -> bool:
    """Whether the package can be imported."""
    return importlib.util.find_spec("spconv") is not None


@contextmanager
def on_any_machine() -> Iterator[None]:
    """Its backward pass asks for a CUDA stream on the CPU, too, which torch has only where there is a driver."""
    asked = torch.cuda.current_stream
    if not torch.cuda.is_available():
        torch.cuda.current_stream = cast(Any, lambda *device: SimpleNamespace(cuda_stream=0))
    try:
        yield
    finally:
        torch.cuda.current_stream = asked


class SpconvTower(nn.Module):
    """The same convolutions with the same weights; norms are those of the given tower.

    Args:
        tower: Ours.
    """

    def __init__(self, tower: SparseTower) -> None:
        super().__init__()
        import spconv.pytorch as spconv

        def layer(conv: SparseConv, key: str, strided: bool = False) -> nn.ModuleList:
            inputs, outputs = conv.weight.shape[0] // 27, conv.weight.shape[1]
            kind, stride = (spconv.SparseConv3d, 2) if strided else (spconv.SubMConv3d, 1)
            module = kind(inputs, outputs, 3, stride=stride, padding=1, bias=False, indice_key=key)
            module.weight.data = conv.weight.detach().view(3, 3, 3, inputs, outputs).permute(4, 0, 1, 2, 3).contiguous()
            return nn.ModuleList([module, conv.norm])

        levels = [cast(List[SparseConv], x) for x in tower.same]
        self.first = nn.ModuleList(layer(cast(SparseConv, conv), "0") for conv in tower.first)
        self.down = nn.ModuleList(
            layer(cast(SparseConv, conv), f"to {level + 1}", True) for level, conv in enumerate(tower.down)
        )
        self.same = nn.ModuleList(
            nn.ModuleList(layer(conv, str(level + 1)) for conv in layers) for level, layers in enumerate(levels)
        )
        self._tensor = spconv.SparseConvTensor

    def forward(
        self, codes: Float[Tensor, "points inputs"], tables: SparseTables, sites: Int[Tensor, "sites 3"]
    ) -> List[Any]:
        """Sparse tensors of the four coarser levels, their neighbours found anew.

        Args:
            codes: As for ours.
            tables: Ours; only the finest level's sites of the points and its shape are read.
            sites: Coordinates of the finest level, as `finest_sites` has them.
        """
        means = scatter_mean(codes, tables.site_of_point, tables.counts[0])
        shape = [n - 2 for n in tables.rows[0].shape]
        x = self._tensor(means, torch.cat([torch.zeros_like(sites[:, :1]), sites], dim=1).int(), shape, 1)

        def through(x: Any, layer: nn.Module) -> Any:
            conv, norm = cast(Tuple[nn.Module, nn.Module], layer)
            x = conv(x)
            return x.replace_feature(torch.relu(norm(x.features)))

        for layer in self.first:
            x = through(x, layer)
        volumes = []
        for down, layers in zip(self.down, self.same):
            x = through(x, down)
            for layer in cast(nn.ModuleList, layers):
                x = through(x, layer)
            volumes.append(x)
        return volumes


def in_our_order(volume: Any, tables: SparseTables, level: int) -> Float[Tensor, "sites channels"]:
    """Features of a level in the rows of our tables.

    Raises:
        ValueError: The sites are not ours.
    """
    sites = volume.indices[:, 1:].long()
    rows = tables.rows[level][1:-1, 1:-1, 1:-1][tuple(sites.unbind(1))].long()
    if sorted(rows.tolist()) != list(range(tables.counts[level])):
        raise ValueError(f"spconv has {len(rows)} sites at level {level}, and not the {tables.counts[level]} of ours.")
    return volume.features[torch.argsort(rows)]


def finest_sites(tables: SparseTables) -> Int[Tensor, "sites 3"]:
    """Coordinates of the sites of the finest level, in the order of their rows."""
    grid = tables.rows[0][1:-1, 1:-1, 1:-1]
    sites = torch.nonzero(grid != tables.counts[0])
    return sites[torch.argsort(grid[tuple(sites.unbind(1))])]
