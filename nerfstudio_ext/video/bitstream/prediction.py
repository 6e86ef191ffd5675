"""Embeddings as differences from the frame before: what a channel keeps from one frame to the next is not coded again.

Integers only, so that every machine restores the same codes.
"""

from dataclasses import dataclass
from typing import List, Sequence

import numpy as np
from jaxtyping import Int, UInt8

from nerfstudio_ext.engine.errors import InputError

WHOLE = 16
"""A share of this many parts takes all of the frame before."""

Codes = Int[np.ndarray, "frames channels grid_height grid_width"]


@dataclass(frozen=True)
class Prediction:
    """What is expected of each channel."""

    centre: Int[np.ndarray, "channels"]
    """Code that a channel is expected to be about, int16."""
    share: UInt8[np.ndarray, "channels"]
    """How much of the deviation from it the next frame is expected to keep, in sixteenths."""

    def check(self) -> None:
        """Refuse what no encoder writes.

        Raises:
            InputError: A share is more than the whole.
        """
        if (self.share > WHOLE).any():
            raise InputError("a frame in it is predicted from more than the frame before")


def differences(codes: Codes, prediction: Prediction) -> Codes:
    """Codes less what is expected of them (int64)."""
    moved = codes.astype(np.int64) - _by_channel(prediction.centre)
    moved[1:] -= _kept(moved[:-1], prediction)
    return moved


def restore(
    differences: Sequence[Int[np.ndarray, "channels grid_height grid_width"]], prediction: Prediction
) -> List[Int[np.ndarray, "channels grid_height grid_width"]]:
    """The codes again (int32), frame by frame: a long clip's do not lie in memory twice."""
    codes, centre = [], _by_channel(prediction.centre)
    moved = np.zeros((), np.int64)
    for k, difference in enumerate(differences):
        moved = difference.astype(np.int64) + (_kept(moved, prediction) if k else 0)
        # Differences are below 2^15 and frames below 2^15, so that no code reaches 2^31.
        codes.append((moved + centre).astype(np.int32))
    return codes


def _kept(moved: Int[np.ndarray, "*frames channels grid_height grid_width"], prediction: Prediction) -> np.ndarray:
    """Shares of deviations, halves rounded up."""
    return (_by_channel(prediction.share) * moved + WHOLE // 2) // WHOLE


def _by_channel(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int64)[:, None, None]
