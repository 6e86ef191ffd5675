"""What numbers cost: bits of integer codes under Gaussians fitted to them (network-free rate model, Boosting-NeRV
section 3.5)."""

import math
from typing import Tuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

PROBABILITY_FLOOR = 1e-5
"""Added to every probability, so that a code far from the mean costs a finite number of bits."""
SMALLEST_STD = 0.05
"""Standard deviations below this one are taken for it; codes that are all alike then cost nothing."""


def round_straight_through(codes: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Nearest integers, with the gradient of the identity."""
    return codes + (codes.round() - codes).detach()


def gaussian_bits(
    codes: Float[Tensor, "*shape"], mean: Float[Tensor, "*shape"], std: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Bits of each code under a Gaussian integrated over unit bins.

    Args:
        codes: Integers, or in training codes plus uniform noise, where the bin is centred on the noisy code.
        mean: Mean of the Gaussian, in code units.
        std: Its standard deviation, positive.
    """
    width = math.sqrt(0.5) / std
    centre = (codes - mean) * width
    # erf runs vectorised; ndtr, which would give the same, does not.
    probability = 0.5 * (torch.erf(centre + 0.5 * width) - torch.erf(centre - 0.5 * width))
    return -torch.log2(probability + PROBABILITY_FLOOR).clamp_max(0)


def noisy(codes: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Codes plus uniform noise of one bin's width, the differentiable stand-in for rounding."""
    return codes + (torch.rand_like(codes) - 0.5)


def segment_moments(
    codes: Float[Tensor, "numbers"], segments: Int[Tensor, "numbers"], counts: Float[Tensor, "segments"]
) -> Tuple[Float[Tensor, "segments"], Float[Tensor, "segments"]]:
    """Mean and standard deviation (at least SMALLEST_STD) of each segment of a flat vector.

    Args:
        codes: All segments end to end.
        segments: Which segment each number belongs to.
        counts: Numbers in each segment.
    """
    mean = torch.zeros_like(counts).index_add(0, segments, codes) / counts
    square = (codes - mean.index_select(0, segments)).square()
    variance = torch.zeros_like(counts).index_add(0, segments, square) / counts
    return mean, variance.clamp_min(SMALLEST_STD**2).sqrt()
