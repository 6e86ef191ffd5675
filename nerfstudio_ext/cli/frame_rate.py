"""The rate of a written video: what `--fps` may be, and where in the clip its pictures lie."""

from typing import List, Optional

from nerfstudio_ext.engine.errors import InputError

LOWEST, HIGHEST = 0.01, 1000.0
"""Frames per second that containers and players can do something with."""


def check_rate(fps: Optional[float]) -> None:
    """Refuse a rate that no video has; none is the clip's own.

    Raises:
        InputError: It is out of range, or no number.
    """
    if fps is not None and not LOWEST <= fps <= HIGHEST:
        raise InputError(f"--fps {fps:g} must be from {LOWEST:g} to {HIGHEST:g} frames per second.")


def times_at(num_frames: int, fps: float, wanted: float) -> List[float]:
    """Places in a clip of the pictures of another rate, in frames from 0, up to its last frame.

    Args:
        num_frames: Frames of the clip.
        fps: Their rate.
        wanted: Rate of the pictures.
    """
    count = int((num_frames - 1) * wanted / fps + 1e-6) + 1
    return [k * fps / wanted for k in range(count)]
