"""How large a video network is: strides from the frame size, padding, stage widths, the width that meets a budget."""

import math
from dataclasses import dataclass
from typing import Callable, List, Literal, Tuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError

GRID_CELLS = 9 * 16
"""Cells of the coarse grid in all published settings (9x16 at 720p and 1080p)."""
NARROWEST = 4
"""Smallest width of a network: E-NeRV's first stage divides it by four."""


@dataclass(frozen=True)
class FrameLayout:
    """Frame size, upsampling strides, and the padding that makes the one divisible by the other.

    Frames are padded by replication at the right and bottom; the crop window is the top left height x width.
    """

    height: int
    width: int
    strides: Tuple[int, ...]

    @property
    def grid(self) -> Tuple[int, int]:
        """Height and width of the coarse grid that decoding starts from."""
        factor = math.prod(self.strides)
        return math.ceil(self.height / factor), math.ceil(self.width / factor)

    def pad(
        self, frames: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames 3 padded_height padded_width"]:
        """Replicate the last row and column up to the next multiple of the strides."""
        factor = math.prod(self.strides)
        rows, columns = self.grid[0] * factor - self.height, self.grid[1] * factor - self.width
        return F.pad(frames, (0, columns, 0, rows), mode="replicate") if rows or columns else frames

    def crop(
        self, frames: Float[Tensor, "frames channels padded_height padded_width"]
    ) -> Float[Tensor, "frames channels height width"]:
        """Undo the padding."""
        return frames[..., : self.height, : self.width]


def choose_strides(height: int, width: int) -> Tuple[int, ...]:
    """Upsampling strides whose coarse grid is near 9x16 cells and that pad the frame least.

    Gives the published choices: (5, 2, 2, 2, 2) for 720p, (5, 3, 2, 2, 2) for 1080p, (5, 2, 2) for 320x180.
    """

    def cost(strides: Tuple[int, ...]) -> Tuple[float, int]:
        layout = FrameLayout(height, width, strides)
        rows, columns = layout.grid
        factor = math.prod(strides)
        padding = rows * columns * factor**2 / (height * width) - 1
        # A padded pixel is computed and thrown away; a grid off by a factor e costs as much as 7.5 % of padding.
        return 2 * padding + 0.15 * abs(math.log(rows * columns / GRID_CELLS)), -len(strides)

    candidates = [head + (2,) * twos for head in [(), (3,), (5,), (5, 3), (3, 3)] for twos in range(6) if head or twos]
    return min(candidates, key=cost)


def stage_widths(
    width: int, num_stages: int, expansion: float, divisor: float, rounding: Literal["nearest", "floor"], lower: int
) -> List[int]:
    """Channels after every stage: the stem's width times the expansion, then divided stage by stage down to the
    bound."""
    to_integer = {"nearest": round, "floor": math.floor}[rounding]
    widths = [to_integer(width * expansion)]
    for _ in range(num_stages - 1):
        widths.append(max(to_integer(widths[-1] / divisor), lower))
    return widths


def largest_width(count: Callable[[int], int], budget: float, flag: str = "--pipeline.model.target-params") -> int:
    """Largest width whose true size fits the budget.

    Args:
        count: Numbers that a model of the given width takes of the budget; non-decreasing.
        budget: Numbers allowed.
        flag: Where the user sets the budget.

    Raises:
        InputError: Even the narrowest model is larger than the budget.
    """
    if count(NARROWEST) > budget:
        raise InputError(
            f"A budget of {budget:.0f} numbers is too small for this clip: the narrowest network takes "
            f"{count(NARROWEST)}; raise {flag}, shorten the clip (--last-frame, --frame-step) or give larger "
            "--pipeline.model.strides."
        )
    low, high = NARROWEST, 2 * NARROWEST
    while count(high) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    return low
