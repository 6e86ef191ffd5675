"""Integer codes to one stream of words and back: asymmetric numeral systems with a Gaussian per segment."""

from dataclasses import dataclass
from typing import Any, List, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt32

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video.bitstream.gaussian import bin_probabilities

MAX_LEVELS = 2**14
"""Most different codes in one segment, from its smallest to its largest."""
MAX_TOTAL_LEVELS = 2**24
"""The same, over all segments."""
MIN_STD = 2.0**-6
"""Smallest standard deviation that is written."""


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

    def check(self) -> None:
        """Refuse what no encoder writes.

        Raises:
            InputError: A distribution is impossible or too wide.
        """
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
    if low.size and (low.min() < -(2**15) or high.max() >= 2**15 or (high - low).max() >= MAX_LEVELS):
        raise InputError(
            f"The codes span {(high - low).max() + 1} levels, more than {MAX_LEVELS}: compress with fewer bits."
        )
    mean = np.array([codes.mean() for codes in segments]).astype(np.float16)
    std = np.maximum(np.array([codes.std() for codes in segments]), MIN_STD).astype(np.float16)
    return Distributions(mean, std, low.astype(np.int16), high.astype(np.int16))


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
            segments.append(coder.decode(_model(constriction, distributions, index), size) + low)
    if not coder.is_empty():
        raise InputError("its code words hold more or less than the numbers of the network")
    return segments


def _model(constriction: Any, distributions: Distributions, index: int) -> Any:
    low, high = int(distributions.low[index]), int(distributions.high[index])
    shares = bin_probabilities(low, high, float(distributions.mean[index]), float(distributions.std[index]))
    # Gives every level at least the smallest share that the coder knows; the tiny constant keeps the sum positive.
    return constriction.stream.model.Categorical(shares + 1e-12, perfect=False)


def _constriction() -> Any:
    try:
        import constriction
    except ImportError:
        raise InputError("Video files need the package constriction: pip install 'nerfstudio-ext[video]'.") from None
    return constriction
