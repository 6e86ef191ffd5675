"""ConvNeXt encoder of the hybrid representations (HNeRV section 3.1): a frame to a tiny embedding; never stored."""

from typing import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of every pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "frames channels height width"]
    ) -> Float[Tensor, "frames channels height width"]:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, eps=1e-6)
        return x.permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """7x7 depthwise convolution, channel norm, four-fold GELU MLP, layer scale; residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = ChannelNorm(channels)
        self.expand = nn.Linear(channels, 4 * channels)
        self.reduce = nn.Linear(4 * channels, channels)
        self.layer_scale = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(
        self, x: Float[Tensor, "frames channels height width"]
    ) -> Float[Tensor, "frames channels height width"]:
        y = self.norm(self.depthwise(x)).permute(0, 2, 3, 1)
        y = self.layer_scale * self.reduce(F.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXtEncoder(nn.Module):
    """Stages of patchify convolution and one ConvNeXt block.

    Args:
        strides: Downsampling factor (and kernel size) of every stage; the decoder's strides in the same order.
        channels: Channels between stages.
        embedding_channels: Channels of the last stage, the embedding.
    """

    def __init__(self, strides: Sequence[int], channels: int = 64, embedding_channels: int = 16) -> None:
        super().__init__()
        widths = [channels] * (len(strides) - 1) + [embedding_channels]
        self.patchify = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for i, (stride, width) in enumerate(zip(strides, widths)):
            previous = 3 if i == 0 else widths[i - 1]
            conv = nn.Conv2d(previous, width, stride, stride)
            # The first stage normalises after its convolution, later ones before, as ConvNeXt does.
            self.patchify.append(
                nn.Sequential(conv, ChannelNorm(width)) if i == 0 else nn.Sequential(ChannelNorm(previous), conv)
            )
            self.blocks.append(ConvNeXtBlock(width))
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(
        self, frames: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames channels grid_height grid_width"]:
        x = frames
        for patchify, block in zip(self.patchify, self.blocks):
            x = block(patchify(x))
        return x
