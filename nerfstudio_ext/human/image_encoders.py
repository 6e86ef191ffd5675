"""Convolutional encoders of photographs: a stacked-hourglass branch for geometry and a residual one for texture
(Newell et al. 2016, Johnson et al. 2016, in the forms that PIFu and KeypointNeRF use). Pictures are in [-1, 1]."""

import math
from itertools import pairwise
from typing import Tuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

GROUPS = 32


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation over 32 groups of channels, or as many as divide both."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


class ConcatResBlock(nn.Module):
    """Three convolutions, each on the one before, whose outputs (1/2, 1/4, 1/4 of the width) stand side by side.

    Args:
        inputs: Channels in.
        outputs: Channels out, a multiple of 4.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = (inputs, outputs // 2, outputs // 4, outputs // 4)
        self.stages = nn.ModuleList(
            nn.Sequential(group_norm(a), nn.ReLU(), nn.Conv2d(a, b, 3, padding=1, bias=False))
            for a, b in pairwise(widths)
        )
        skip = [group_norm(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False)]
        self.skip = nn.Identity() if inputs == outputs else nn.Sequential(*skip)

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h w"]:
        parts, value = [], x
        for stage in self.stages:
            value = stage(value)
            parts.append(value)
        return torch.cat(parts, dim=1) + self.skip(x)


class Hourglass(nn.Module):
    """Features of several scales added up, from the coarsest to the finest.

    Args:
        width: Channels everywhere.
        depth: How often the resolution is halved.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.upper = ConcatResBlock(width, width)
        self.before = ConcatResBlock(width, width)
        self.inner = Hourglass(width, depth - 1) if depth > 1 else ConcatResBlock(width, width)
        self.after = ConcatResBlock(width, width)

    def forward(self, x: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch width h w"]:
        upper = self.upper(x)
        lower = self.after(self.inner(self.before(F.avg_pool2d(x, 2))))
        return upper + F.interpolate(lower, size=upper.shape[-2:], mode="bicubic", align_corners=True)


class GeometryEncoder(nn.Module):
    """A coarse map at a quarter and a fine one at the whole of the input's resolution.

    Args:
        stem: Channels of the first convolution.
        width: Channels of the hourglass.
        depth: Halvings inside the hourglass.
        coarse: Channels of the coarse map.
        fine: Channels of the fine map.
    """

    def __init__(self, stem: int, width: int, depth: int, coarse: int, fine: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 7, 2, 3), group_norm(stem), nn.ReLU())
        self.second = ConcatResBlock(stem, 2 * stem)
        self.fine = nn.Sequential(
            nn.ConvTranspose2d(2 * stem, stem // 2, 3, 2, 1, output_padding=1, bias=False),
            group_norm(stem // 2),
            nn.ReLU(),
            nn.Conv2d(stem // 2, fine, 5, padding=2),
        )
        self.quarter = nn.Sequential(ConcatResBlock(2 * stem, 2 * stem), ConcatResBlock(2 * stem, width))
        self.hourglass = Hourglass(width, depth)
        self.head = nn.Sequential(
            ConcatResBlock(width, width),
            nn.Conv2d(width, width, 1),
            group_norm(width),
            nn.ReLU(),
            nn.Conv2d(width, coarse, 1),
        )

    def forward(
        self, pictures: Float[Tensor, "batch 3 h w"]
    ) -> Tuple[Float[Tensor, "batch coarse h4 w4"], Float[Tensor, "batch fine h w"]]:
        half = self.second(self.stem(pictures))
        coarse = self.head(self.hourglass(self.quarter(F.avg_pool2d(half, 2))))
        return coarse, self.fine(half)


class TextureEncoder(nn.Module):
    """Features at half the input's resolution, from residual blocks at an eighth of it.

    Args:
        width: Channels at the first convolution; twice as many after each of the three halvings.
        blocks: Residual blocks.
        outputs: Channels out.
    """

    def __init__(self, width: int, blocks: int, outputs: int) -> None:
        super().__init__()
        layers = [nn.ReplicationPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU()]
        for level in range(3):
            a, b = width * 2**level, width * 2 ** (level + 1)
            layers += [nn.Conv2d(a, b, 3, 2, 1), nn.InstanceNorm2d(b), nn.ReLU()]
        layers += [_PaddedResBlock(8 * width) for _ in range(blocks)]
        for a, b in ((8 * width, 4 * width), (4 * width, 2 * width)):
            layers += [nn.ConvTranspose2d(a, b, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(b), nn.ReLU()]
        layers += [nn.ReplicationPad2d(3), nn.Conv2d(2 * width, outputs, 7)]
        self.layers = nn.Sequential(*layers)

    def forward(self, pictures: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        # torch 2.7's gradient of instance normalisation is wrong on CPU where channels are the innermost axis.
        return self.layers(pictures.contiguous())


class _PaddedResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReplicationPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
            nn.ReLU(),
            nn.ReplicationPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
