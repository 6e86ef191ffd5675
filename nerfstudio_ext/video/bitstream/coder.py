"""Integer codes to one stream of words and back: asymmetric numeral systems with a Gaussian per segment, and beside it
a share of zeros where weights were pruned."""

from dataclasses import dataclass
from typing import Any, List, Sequence, Tuple

import numpy as np
from jaxtyping import Float, Int, UInt32

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.packages import require_packages
from nerfstudio_ext.video.bitstream.gaussian import bin_probabilities

MAX_LEVELS = 2**14
"""Most different codes in one segment, from its smallest to its largest."""
MAX_TOTAL_LEVELS = 2**24
"""The same, over all segments."""
MIN_STD = 2.0**-6
"""Smallest standard deviation that is written."""
MOST_ZEROS = 0.999
"""Largest share of zeros that is written, well below what float16 would round to 1."""
LEAST_SAVING = 64.0
"""Bits that a share of zeros must save in a segment to be written."""
SMALLEST_SHARE = 1e-12
"""Added to the share of every code; the sum then is positive."""


@dataclass(frozen=True)
class Distributions:
    """Gaussian and range of every segment, rounded as the file holds them."""

    mean: Float[np.ndarray, "segments"]
    """Means, float16."""
    std: Float[np.ndarray, "segments"]
    """Standard deviations, float16, at least MIN_STD."""
    low: Int[np.ndarray, "segments"]
    """Smallest codes, int16."""
    high: Int[np.ndarray, "segments"]
    """Largest codes, int16."""
    zeros: Float[np.ndarray, "segments"]
    """Shares of code 0 that come on top of the Gaussians', float16, in [0, 1)."""

    def check(self) -> None:
        """Refuse what no encoder writes.

        Raises:
            InputError: A distribution is impossible or too wide.
        """
        with_zeros = self.zeros != 0
        if not ((self.zeros >= 0) & (self.zeros < 1)).all() or ((self.low > 0) | (self.high < 0))[with_zeros].any():
            raise InputError("a share of zeros in it is impossible")
        levels = self.high.astype(np.int64) - self.low + 1
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std >= MIN_STD).all()):
            raise InputError("a Gaussian in it has no finite mean or no positive width")
        if levels.size and (levels.min() < 1 or levels.max() > MAX_LEVELS or levels.sum() > MAX_TOTAL_LEVELS):
            raise InputError(f"the codes of a segment span none or more than {MAX_LEVELS} levels")


def fit(segments: Sequence[Int[np.ndarray, "numbers"]]) -> Distributions:
    """Gaussian and range of each segment's codes.

    Args:
        segments: Integer codes, each segment with at least one.

    Raises:
        InputError: Codes do not fit the format.
    """
    low = np.array([codes.min() for codes in segments], dtype=np.int64)
    high = np.array([codes.max() for codes in segments], dtype=np.int64)
    if low.size and (low.min() < -(2**15) or high.max() >= 2**15):
        raise InputError(f"The codes reach from {low.min()} to {high.max()}, beyond 16 bits: compress with fewer bits.")
    if low.size and (high - low).max() >= MAX_LEVELS:
        raise InputError(
            f"The codes span {(high - low).max() + 1} levels, more than {MAX_LEVELS}: compress with fewer bits."
        )
    moments = np.array([_moments(codes) for codes in segments]).reshape(-1, 3).astype(np.float16)
    return Distributions(moments[:, 0], moments[:, 1], low.astype(np.int16), high.astype(np.int16), moments[:, 2])


def _moments(codes: Int[np.ndarray, "numbers"]) -> Tuple[float, float, float]:
    """Mean and deviation of the Gaussian, and the share of zeros beside it; 0 where it would save next to nothing."""
    whole = float(codes.mean()), max(float(codes.std()), MIN_STD), 0.0
    others, low, high = codes[codes != 0], int(codes.min()), int(codes.max())
    if len(others) in (0, len(codes)):
        return whole
    mean, std = float(others.mean()), max(float(others.std()), MIN_STD)
    share = 1 - len(others) / len(codes)
    at_zero = float(bin_probabilities(0, 0, mean, std)[0])
    if share <= at_zero or at_zero == 1:
        return whole
    apart = mean, std, min((share - at_zero) / (1 - at_zero), MOST_ZEROS)
    counts = np.bincount(codes - low, minlength=high - low + 1)
    costs = [-float((counts * np.log2(_shares(low, high, *way) + SMALLEST_SHARE)).sum()) for way in (whole, apart)]
    return apart if costs[0] - costs[1] > LEAST_SAVING else whole


def _shares(low: int, high: int, mean: float, std: float, zeros: float) -> Float[np.ndarray, "levels"]:
    """Share of every code from low to high; the operations are those that are the same everywhere, one at a time."""
    shares = bin_probabilities(low, high, mean, std)
    if zeros > 0:
        shares = shares * (1.0 - zeros)
        shares[-low] = shares[-low] + zeros
    return shares


def ideal_bits(segments: Sequence[Int[np.ndarray, "numbers"]]) -> float:
    """Bits of all segments under the distributions that fit them: what `encode` comes close to."""
    bits, d = 0.0, fit(segments)
    for index, codes in enumerate(segments):
        low, high = int(d.low[index]), int(d.high[index])
        if low < high:
            shares = _shares(low, high, *(float(column[index]) for column in (d.mean, d.std, d.zeros))) + SMALLEST_SHARE
            counts = np.bincount(codes.astype(np.int64) - low, minlength=high - low + 1)
            bits -= float((counts * np.log2(shares / shares.sum())).sum())
    return bits


def encode(segments: Sequence[Int[np.ndarray, "numbers"]], distributions: Distributions) -> UInt32[np.ndarray, "words"]:
    """All segments as one stream of 32-bit words; a segment of one and the same code takes no room."""
    constriction = _constriction()
    coder = constriction.stream.stack.AnsCoder()
    for index in reversed(range(len(segments))):  # a stack: the last one in is the first one out
        if distributions.low[index] != distributions.high[index]:
            symbols = segments[index].astype(np.int32) - np.int32(distributions.low[index])
            coder.encode_reverse(symbols, _model(constriction, distributions, index))
    return coder.get_compressed()


def decode(
    words: UInt32[np.ndarray, "words"], distributions: Distributions, sizes: Sequence[int]
) -> List[Int[np.ndarray, "numbers"]]:
    """Integer codes (int32) of every segment.

    Args:
        words: What `encode` gave.
        distributions: What it was given, checked.
        sizes: Codes in each segment.

    Raises:
        InputError: The words are no such stream.
    """
    constriction = _constriction()
    try:
        coder = constriction.stream.stack.AnsCoder(words)
    except ValueError:
        raise InputError("its code words do not end as a stream does") from None
    segments = []
    for index, size in enumerate(sizes):
        low = np.int32(distributions.low[index])
        if low == distributions.high[index]:
            segments.append(np.full(size, low, np.int32))
        else:
            codes = coder.decode(_model(constriction, distributions, index), size)
            codes += low
            segments.append(codes)
    if not coder.is_empty():
        raise InputError("its code words hold more or less than the numbers of the network")
    return segments


def _model(constriction: Any, distributions: Distributions, index: int) -> Any:
    d = distributions
    columns = (float(column[index]) for column in (d.mean, d.std, d.zeros))
    shares = _shares(int(d.low[index]), int(d.high[index]), *columns)
    # Gives every level at least the smallest share that the coder knows.
    return constriction.stream.model.Categorical(shares + SMALLEST_SHARE, perfect=False)


def _constriction() -> Any:
    require_packages("A .bnrv file", "video", "constriction")
    import constriction

    return constriction
