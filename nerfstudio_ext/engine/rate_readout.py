"""Rate and quality of a compression while it trains: a line in the viewer, and one per epoch in the terminal."""

from typing import List

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.viewer_elements import ViewerText
from torch import Tensor, nn

STEPS_PER_SHOWING = 25
"""Steps between two updates of the viewer's line; each reads two numbers back from the device."""


class RateReadout(nn.Module):
    """Shows bits per pixel beside PSNR; a module without parameters, since the viewer looks inside modules only.

    Args:
        target: Bits per pixel aimed at.
        steps_per_line: Training steps between two lines in the terminal.
    """

    def __init__(self, target: float, steps_per_line: int) -> None:
        super().__init__()
        self._target = target
        self._steps_per_line = steps_per_line
        self._noted: List[Tensor] = []
        self._steps = 0
        self.rate = ViewerText(
            "Rate",
            "no step yet",
            disabled=True,
            hint="Bits per pixel as training counts them and PSNR, recent mean; files take fewer",
        )

    def note(self, psnr: Tensor, bpp: Tensor) -> None:
        """Take in one training step: PSNR of its frames in dB, and bits per pixel of the whole video."""
        self._steps += 1
        self._noted.append(torch.stack([psnr, bpp]))
        line_due = self._steps % self._steps_per_line == 0
        if line_due or self._steps % STEPS_PER_SHOWING == 0:
            self.rate.value = self._text()
        if line_due:
            CONSOLE.print(f"rate: {self._text()}", highlight=False)
            self._noted = []

    def _text(self) -> str:
        psnr, bpp = torch.stack(self._noted[-self._steps_per_line :]).mean(0).tolist()
        return f"{bpp:.4f} bits/pixel before prediction (target {self._target:.4f}), {psnr:.2f} dB"
