"""Positional encoding of frame times, the same number for number on every machine (NeRV eq. 2).

With b=1.25 the 80th frequency is 1.4e8, where one float32 step is larger than a period: computed in floating point, the
upper half of the code depends on how a device rounds powers and products, and a stored video would decode to noise
elsewhere. Times and bases are rational, so the phase is reduced modulo one period in exact integer arithmetic before
any rounding.
"""

import math
from fractions import Fraction
from typing import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def positional_encoding(
    positions: Sequence[Fraction], base: float, num_frequencies: int
) -> Float[Tensor, "positions channels"]:
    """Sines, then cosines, of pi * base^k * position for k = 0 .. num_frequencies - 1.

    Args:
        positions: Exact positions, usually in [0, 1].
        base: Ratio of neighbouring frequencies; read as the decimal number that it prints as.
        num_frequencies: Number of frequencies, half of the channels.

    Returns:
        CPU float32 table with 2 * num_frequencies channels, rounded once from float64.
    """
    ratio = Fraction(str(base))
    powers = [ratio**k for k in range(num_frequencies)]
    half_turns = [[_half_turns(power, position) for power in powers] for position in positions]
    phase = torch.tensor(half_turns, dtype=torch.float64) * math.pi
    return torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1).float()


def _half_turns(frequency: Fraction, position: Fraction) -> float:
    """Their product modulo 2, in integers: a Fraction would reduce each of thousands of products."""
    denominator = frequency.denominator * position.denominator
    return frequency.numerator * position.numerator % (2 * denominator) / denominator


def frame_times(num_frames: int, convention: str) -> Sequence[Fraction]:
    """Time of every frame in the convention of a method's published code.

    Args:
        num_frames: Length of the clip.
        convention: ``start`` i/N (NeRV, HNeRV), ``end`` (i+1)/N (boosted methods) or ``closed`` i/(N-1) (E-NeRV).

    Raises:
        ValueError: The convention is none of the three.
    """
    if convention == "start":
        return [Fraction(i, num_frames) for i in range(num_frames)]
    if convention == "end":
        return [Fraction(i + 1, num_frames) for i in range(num_frames)]
    if convention == "closed":
        return [Fraction(i, max(num_frames - 1, 1)) for i in range(num_frames)]
    raise ValueError(f"unknown time convention {convention!r}: expected start, end or closed")
