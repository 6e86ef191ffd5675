"""Positional encoding of frame times, the same number for number on every machine (NeRV eq. 2).

With b=1.25 the 80th frequency is 1.4e8, where one float32 step is larger than a period: computed in floating point, the
upper half of the code depends on how a device rounds powers and products, and a stored video would decode to noise
elsewhere. Times and bases are rational, so the phase is worked out in integers, to 128 binary digits behind the point,
and reduced modulo one period before it is rounded to a float.
"""

import math
from fractions import Fraction
from typing import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

GUARD_BITS, PHASE_BITS = 64, 128
"""Binary digits of a phase behind the point, and more of them while it is worked out."""


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
    ratio, common = Fraction(str(base)), math.lcm(*(position.denominator for position in positions))
    digits = GUARD_BITS + PHASE_BITS
    powers = [(ratio.numerator**k, ratio.denominator**k * common) for k in range(num_frequencies)]
    steps = [(above << digits) // below % (2 << digits) for above, below in powers]
    places = [position.numerator * (common // position.denominator) for position in positions]
    phase = torch.tensor([[_half_turns(step, place) for step in steps] for place in places], dtype=torch.float64)
    phase = phase * math.pi
    return torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1).float()


def _half_turns(step: int, place: int) -> float:
    """Their product modulo 2, in integers; the guard bits take up what was cut off of the step."""
    product = (step * place + (1 << (GUARD_BITS - 1))) >> GUARD_BITS
    return (product & ((2 << PHASE_BITS) - 1)) / (1 << PHASE_BITS)


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
