"""A small rigid motion for each frame that makes up for an inexact fit of the body."""

from dataclasses import replace

import torch
from torch import nn

from nerfstudio_ext.human.body_grid import BodyFrame
from nerfstudio_ext.human.skinning import rotation_matrix


class PoseRefinement(nn.Module):
    """Corrections of Rh and Th per frame, none at first: x = R(turn) R(Rh) y + Th + shift.

    The body as a whole moves; its joints do not bend, so that its grid and tables stay what they are. Its box moves
    along but does not grow: turns are meant to stay within its padding.

    Args:
        num_frames: Frames that are trained on.
    """

    def __init__(self, num_frames: int) -> None:
        super().__init__()
        self.turns = nn.Parameter(torch.zeros(num_frames, 3))
        """Axis-angle, radians, about the frame's Th."""
        self.shifts = nn.Parameter(torch.zeros(num_frames, 3))
        """Metres, world axes."""

    def forward(self, frame: BodyFrame, row: int) -> BodyFrame:
        """The frame with the correction of a row; gradients reach it through every query at a world point."""
        turn, shift = rotation_matrix(self.turns[row]), self.shifts[row]
        return replace(
            frame,
            rotation=turn @ frame.rotation,
            translation=frame.translation + shift,
            box=frame.box + shift.detach(),
        )
