"""Weights that are left out: the smallest of a decoder, over all its tensors (global pruning, NeRV section 3.3)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from nerfstudio_ext.engine.errors import InputError


@dataclass
class PruningConfig:
    """Training stage in which the smallest weights of the decoder are held at zero."""

    keep: float = 0.4
    """Share of the weights that stay; biases all stay."""
    start_run: Optional[Path] = None
    """Run whose last weights the stage started from."""

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise InputError(f"--keep {self.keep} must be above 0 and at most 1: the share of weights that stay.")


class Pruner(nn.Module):
    """Which weights stay; remembered in checkpoints.

    Args:
        tensors: The decoder's tensors by name; those with one dimension (biases) are left alone.
    """

    kept: Bool[Tensor, "weights"]

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        num_weights = sum(tensor.numel() for tensor in tensors.values() if tensor.dim() > 1)
        self.register_buffer("kept", torch.ones(num_weights, dtype=torch.bool))

    @torch.no_grad()
    def start(self, tensors: Mapping[str, Tensor], keep: float) -> None:
        """Choose the largest weights over all tensors, as many as the share says."""
        sizes = torch.cat([tensor.reshape(-1).abs() for tensor in tensors.values() if tensor.dim() > 1])
        chosen = sizes.topk(max(1, round(keep * sizes.numel()))).indices
        self.kept.zero_()[chosen] = True

    @torch.no_grad()
    def hold(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the weights that do not stay to zero."""
        weights = [tensor for tensor in tensors.values() if tensor.dim() > 1]
        for tensor, kept in zip(weights, self.kept.split([tensor.numel() for tensor in weights])):
            tensor.mul_(kept.view(tensor.shape))
