"""What every kind of frame source offers: a few facts, and its frames one at a time."""

from dataclasses import dataclass
from typing import Iterator, Optional

import numpy as np
from jaxtyping import UInt8
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

DEFAULT_FPS = 25.0
"""Frame rate of sources that do not tell theirs."""


@dataclass
class Source:
    """Where frames come from; subclasses fill in the fields and decode."""

    name: str
    """Short name for people."""
    num_frames: int
    """Frames that the source seems to hold; decoding has the last word."""
    num_missing: int
    """Further frames that the header promises but the file no longer holds."""
    height: int
    """Height in pixels, upright."""
    width: int
    """Width in pixels, upright."""
    fps: float
    """Average frames per second."""
    num_bytes: int
    """Size of the file or of all files."""
    num_damaged: int = 0
    """Pieces that failed to decode in the last `read`."""

    def read(self, first: int, last: Optional[int], step: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Decode frames `first`, `first + step`, ... up to and including `last` (None: to the end)."""
        raise NotImplementedError


def warn(sentence: str) -> None:
    """Print one sentence that the user should see; paths in it are not taken for markup."""
    CONSOLE.print(f"[bold yellow]Warning: {escape(sentence)}", highlight=False, soft_wrap=True)
