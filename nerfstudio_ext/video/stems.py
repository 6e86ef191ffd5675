"""What decoders start from: a coarse grid from time alone (NeRV), time and space (E-NeRV) or content (HNeRV)."""

from fractions import Fraction
from typing import Literal, Optional, Tuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_ext.video.blocks import ACTIVATIONS, ActivationName, Sequential1x1, TATResidual
from nerfstudio_ext.video.time_encoding import positional_encoding

StemName = Literal["time", "grid", "content"]


class TimeStem(nn.Module):
    """Two fully connected layers from the time code to a whole feature grid (NeRV section 3.1)."""

    def __init__(
        self, code_channels: int, hidden: int, channels: int, grid: Tuple[int, int], activation: ActivationName
    ) -> None:
        super().__init__()
        self.grid = grid
        self.mlp = Sequential1x1((code_channels, hidden, channels * grid[0] * grid[1]), activation)

    def forward(self, code: Float[Tensor, "frames code"]) -> Float[Tensor, "frames channels grid_height grid_width"]:
        return self.mlp(code).unflatten(-1, (-1, *self.grid))


class Transformer(nn.Module):
    """Self-attention and a half-width feed-forward layer, both residual, without normalisation (E-NeRV's blocks)."""

    def __init__(self, channels: int, heads: int, head_channels: int = 64) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * heads * head_channels, bias=False)
        self.out = nn.Linear(heads * head_channels, channels)
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, channels // 2), nn.GELU(), nn.Linear(channels // 2, channels)
        )

    def forward(self, tokens: Float[Tensor, "frames tokens channels"]) -> Float[Tensor, "frames tokens channels"]:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(attended)
        return tokens + self.feed_forward(tokens)


class GridStem(nn.Module):
    """Time and space encoded apart and joined token by token between two transformer blocks (E-NeRV section 3.2).

    Args:
        code_channels: Channels of the time code; the code of each spatial axis has as many.
        base: Frequency ratio of the positional encoding, shared by time and space.
        tokens: Width of the tokens.
        channels: Channels of the feature grid.
        grid: Height and width of the feature grid, one token per cell.
        activation: Activation of every fully connected layer outside the transformer.
    """

    def __init__(
        self,
        code_channels: int,
        base: float,
        tokens: int,
        channels: int,
        grid: Tuple[int, int],
        activation: ActivationName,
    ) -> None:
        super().__init__()
        self.grid = grid
        height, width = grid
        rows = positional_encoding([Fraction(i, height) for i in range(height)], base, code_channels // 2)
        columns = positional_encoding([Fraction(j, width) for j in range(width)], base, code_channels // 2)
        space = torch.cat([rows.repeat_interleave(width, 0), columns.repeat(height, 1)], dim=-1)
        self.register_buffer("space_code", space)
        self.time_mlp = Sequential1x1((code_channels, 2 * tokens, tokens), activation)
        self.space_mlp = Sequential1x1((2 * code_channels, tokens), activation)
        self.mix_space = Transformer(tokens, heads=1)
        self.mix_time = Transformer(tokens, heads=8)
        self.project = Sequential1x1((tokens, channels), activation) if channels != tokens else nn.Identity()

    def forward(self, code: Float[Tensor, "frames code"]) -> Float[Tensor, "frames channels grid_height grid_width"]:
        space = self.mix_space(self.space_mlp(self.space_code)[None])
        tokens = self.mix_time(space * self.time_mlp(code)[:, None])
        return self.project(tokens).transpose(1, 2).unflatten(-1, self.grid)


class ContentStem(nn.Module):
    """A 1x1 convolution from the content embedding to the decoder's width (HNeRV), with a TAT block when boosted."""

    def __init__(
        self, embedding_channels: int, channels: int, activation: ActivationName, condition: Optional[int]
    ) -> None:
        super().__init__()
        self.activation = activation
        self.conv = nn.Conv2d(embedding_channels, channels, 1)
        self.tat = TATResidual(channels, condition) if condition is not None else None

    def forward(
        self, embedding: Float[Tensor, "frames embedding grid_height grid_width"], z: Float[Tensor, "frames condition"]
    ) -> Float[Tensor, "frames channels grid_height grid_width"]:
        x = ACTIVATIONS[self.activation](self.conv(embedding))
        return x if self.tat is None else self.tat(x, z)
