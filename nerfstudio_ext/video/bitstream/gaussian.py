"""Probabilities of integer codes under a Gaussian, the same to the last bit on every machine.

Encoder and decoder must agree exactly, and the exponential and error functions of two machines do not. Everything here
is additions, multiplications and divisions of float64, one at a time, which IEEE 754 fixes.
"""

import numpy as np
from jaxtyping import Float

# Hart's rational approximation of the normal tail times exp(x^2 / 2), highest power first; error about 1e-15.
_NUMERATOR = (
    3.52624965998911e-02,
    0.700383064443688,
    6.37396220353165,
    33.912866078383,
    112.079291497871,
    221.213596169931,
    220.206867912376,
)
_DENOMINATOR = (
    8.83883476483184e-02,
    1.75566716318264,
    16.064177579207,
    86.7807322029461,
    296.564248779674,
    637.333633378831,
    793.826512519948,
    440.413735824752,
)
_FARTHEST = 7.0
"""Distance from the mean, in standard deviations, beyond which the tail counts as it does there."""


def bin_probabilities(low: int, high: int, mean: float, std: float) -> Float[np.ndarray, "levels"]:
    """Share of a Gaussian in the unit bins around the integers low .. high; not normalised, and 0 far out.

    Args:
        low: Smallest integer.
        high: Largest integer.
        mean: Mean of the Gaussian, in the same units.
        std: Its standard deviation, positive.
    """
    edges = (np.arange(low, high + 2, dtype=np.float64) - 0.5 - mean) / std
    tail = _tail(np.minimum(np.abs(edges), _FARTHEST))
    # On one side of the mean a difference of tails loses no digits; across it the two tails are what is missing from 1.
    left, right = edges[:-1], edges[1:]
    across = (left < 0) & (right > 0)
    inside = np.where(across, 1.0 - tail[:-1] - tail[1:], np.abs(tail[:-1] - tail[1:]))
    return np.maximum(inside, 0.0)


def _tail(x: Float[np.ndarray, "edges"]) -> Float[np.ndarray, "edges"]:
    """Probability that a standard normal variable exceeds x, for 0 <= x <= 7."""
    above, below = np.zeros_like(x), np.zeros_like(x)
    for coefficient in _NUMERATOR:
        above = above * x + coefficient
    for coefficient in _DENOMINATOR:
        below = below * x + coefficient
    return _exp_minus(0.5 * (x * x)) * (above / below)


def _exp_minus(y: Float[np.ndarray, "edges"]) -> Float[np.ndarray, "edges"]:
    """exp(-y) for 0 <= y <= 32: a Taylor sum at y / 1024, squared ten times."""
    step = -y / 1024.0
    total = np.ones_like(y)
    for divisor in range(8, 0, -1):
        total = 1.0 + total * step / divisor
    for _ in range(10):
        total = total * total
    return total
