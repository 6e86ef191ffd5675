"""Networks that draw, from a photograph, the normals of the near and of the far side of a person, and that turn such
normals into features (the generators and the stacked hourglass of ICON). Pictures are in [-1, 1]."""

from itertools import pairwise
from typing import List

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_ext.human.image_encoders import ConcatResBlock, Hourglass, group_norm

HEAT_SIGMA = 0.12
"""Reach of a keypoint in its heat map, half pictures."""


class SideNet(nn.Module):
    """A picture of one side: halvings, residual blocks, doublings; keypoints come in where the picture is smallest.

    Args:
        width: Channels at the whole resolution; twice as many after each halving.
        halvings: How often the resolution is halved.
        blocks: Residual blocks.
        keypoints: How many there are.
        outputs: Channels out.
        shortcuts: Add what each resolution was on the way down on the way up; a narrow network needs it.
    """

    def __init__(self, width: int, halvings: int, blocks: int, keypoints: int, outputs: int, shortcuts: bool) -> None:
        super().__init__()
        self.shortcuts = shortcuts
        widths = [width * 2**level for level in range(halvings + 1)]
        self.stem = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU())
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.InstanceNorm2d(b), nn.ReLU()) for a, b in pairwise(widths)
        )
        self.pose = nn.Conv2d(widths[-1] + 2 * keypoints, widths[-1], 1)
        self.blocks = nn.ModuleList(_reflected_block(widths[-1]) for _ in range(blocks))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(b, a, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(a), nn.ReLU())
            for a, b in zip(widths[-2::-1], widths[:0:-1])
        )
        self.head = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, outputs, 7))

    def forward(
        self, pictures: Float[Tensor, "batch 3 h w"], heat: Float[Tensor, "batch maps hs ws"]
    ) -> Float[Tensor, "batch outputs h w"]:
        # torch 2.7's gradient of instance normalisation is wrong on CPU where channels are the innermost axis.
        levels = [self.stem(pictures.contiguous())]
        for down in self.down:
            levels.append(down(levels[-1]))
        value = self.pose(torch.cat([levels.pop(), heat], dim=1))
        for block in self.blocks:
            value = value + block(value)
        for up in self.up:
            value = up(value)
            value = value + levels.pop() if self.shortcuts else value
        return self.head(value)


class NormalEncoder(nn.Module):
    """Features of a picture of normals at a quarter of its resolution, one map for each stack.

    Args:
        stem: Channels of the first convolution.
        width: Channels of the hourglasses.
        depth: Halvings inside an hourglass.
        stacks: Hourglasses, each on what the one before found.
        outputs: Channels of a map.
    """

    def __init__(self, stem: int, width: int, depth: int, stacks: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 7, 2, 3), group_norm(stem), nn.ReLU())
        self.before = nn.Sequential(
            ConcatResBlock(stem, width // 2),
            nn.AvgPool2d(2),
            ConcatResBlock(width // 2, width // 2),
            ConcatResBlock(width // 2, width),
        )
        self.hourglasses = nn.ModuleList(
            nn.Sequential(
                Hourglass(width, depth),
                ConcatResBlock(width, width),
                nn.Conv2d(width, width, 1),
                group_norm(width),
                nn.ReLU(),
            )
            for _ in range(stacks)
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, outputs, 1) for _ in range(stacks))
        self.merge = nn.ModuleList(nn.Conv2d(width + outputs, width, 1) for _ in range(stacks - 1))

    def forward(self, normals: Float[Tensor, "batch 3 h w"]) -> List[Float[Tensor, "batch outputs h4 w4"]]:
        value, maps = self.before(self.stem(normals)), []
        for k, (hourglass, head) in enumerate(zip(self.hourglasses, self.heads)):
            inner = hourglass(value)
            maps.append(head(inner))
            if k < len(self.merge):
                value = value + self.merge[k](torch.cat([inner, maps[-1]], dim=1))
        return maps


def keypoint_heat(
    places: Float[Tensor, "batch k 2"], depths: Float[Tensor, "batch k"], size: int
) -> Float[Tensor, "batch maps size size"]:
    """A spot where each keypoint is in the picture, and the same spot times its depth.

    Args:
        places: In the picture, from -1 to 1.
        depths: Metres beyond the keypoints' mean.
        size: Of the maps.
    """
    axis = (torch.arange(size, device=places.device) + 0.5) * (2 / size) - 1
    column = torch.exp(-(places[..., :1] - axis).square() / (2 * HEAT_SIGMA**2))
    row = torch.exp(-(places[..., 1:] - axis).square() / (2 * HEAT_SIGMA**2))
    spots = row[..., :, None] * column[..., None, :]
    return torch.cat([spots, spots * depths[..., None, None]], dim=1)


def unit_normals(
    values: Float[Tensor, "batch 3 h w"], mask: Float[Tensor, "batch 1 h w"]
) -> Float[Tensor, "batch 3 h w"]:
    """Unit vectors on the mask, 0 beside it."""
    return F.normalize(values, dim=1, eps=1e-6) * mask


def _reflected_block(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReflectionPad2d(1),
        nn.Conv2d(width, width, 3),
        nn.InstanceNorm2d(width),
        nn.ReLU(),
        nn.ReflectionPad2d(1),
        nn.Conv2d(width, width, 3),
        nn.InstanceNorm2d(width),
    )
