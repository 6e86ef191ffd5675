"""Decoder blocks of the NeRV family: upsampling convolutions and the modulations that tie them to the frame.

Boosting-NeRV sections 3.2 (temporal-aware affine transform, TAT) and 3.3 (sinusoidal NeRV-like block); E-NeRV section
3.3 (instance modulation, factorised upsampling).
"""

from itertools import pairwise
from typing import Callable, Dict, Literal, Tuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_ext.video.affine_conv import AffineConv

ActivationName = Literal["sin", "gelu"]
ModulationName = Literal["none", "instance", "tat"]

INSTANCE_EPSILON = 1e-5
ACTIVATIONS: Dict[str, Callable[[Tensor], Tensor]] = {"sin": torch.sin, "gelu": F.gelu}


class Sequential1x1(nn.Module):
    """Fully connected layers over the last axis, each followed by the activation."""

    def __init__(self, widths: Tuple[int, ...], activation: ActivationName) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation

    def forward(self, x: Float[Tensor, "*batch channels_in"]) -> Float[Tensor, "*batch channels_out"]:
        for layer in self.layers:
            x = ACTIVATIONS[self.activation](layer(x))
        return x


class AffineHead(nn.Module):
    """Per-channel scale and shift predicted from the frame's condition (Boosting-NeRV eq. 4).

    The scale is an offset from one, so that an untrained head is close to the identity.
    """

    def __init__(self, condition: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Sequential(nn.Linear(condition, condition), nn.ReLU(), nn.Linear(condition, channels))
        self.shift = nn.Sequential(nn.Linear(condition, condition), nn.ReLU(), nn.Linear(condition, channels))

    def forward(
        self, z: Float[Tensor, "frames condition"]
    ) -> Tuple[Float[Tensor, "frames channels"], Float[Tensor, "frames channels"]]:
        return self.scale(z) + 1.0, self.shift(z)


def affine(
    x: Float[Tensor, "frames channels height width"],
    scale: Float[Tensor, "frames channels"],
    shift: Float[Tensor, "frames channels"],
) -> Float[Tensor, "frames channels height width"]:
    """Scale and shift every channel of every frame."""
    return torch.addcmul(shift[:, :, None, None], x, scale[:, :, None, None])


def affine_conv(
    x: Float[Tensor, "frames channels_in height width"],
    scale: Float[Tensor, "frames channels_in"],
    shift: Float[Tensor, "frames channels_in"],
    conv: nn.Conv2d,
) -> Float[Tensor, "frames channels_out height width"]:
    """A 3x3 convolution of a scaled and shifted input; a single frame, the usual case, takes the fused form."""
    # Under autocast the predicted scale is narrower than the weights, and the fused form cannot mix the two.
    if len(x) > 1 or min(x.shape[-2:]) < 2 or scale.dtype != conv.weight.dtype:
        return conv(affine(x, scale, shift))
    return cast(Tensor, AffineConv.apply(x, scale[0], shift[0], conv.weight, conv.bias))


class TATResidual(nn.Module):
    """Residual block around two temporal-aware affine transforms, without any normalisation (Boosting-NeRV section
    3.2).

    x + conv(affine(gelu(conv(affine(x))))), where each affine takes its own scale and shift from the condition.
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.affine_in = AffineHead(condition, channels)
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.affine_out = AffineHead(condition, channels)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "frames channels height width"], z: Float[Tensor, "frames condition"]
    ) -> Float[Tensor, "frames channels height width"]:
        scale, shift = self.affine_in(z)
        y = F.gelu(affine_conv(x, scale, shift, self.conv_in))
        scale, shift = self.affine_out(z)
        return affine_conv(y, scale, shift, self.conv_out).add_(x)


class InstanceModulation(nn.Module):
    """Instance normalisation, then a scale and shift from the condition (E-NeRV section 3.3)."""

    def __init__(self, channels: int, condition: int, activation: ActivationName) -> None:
        super().__init__()
        self.head = Sequential1x1((condition, 2 * channels), activation)

    def forward(
        self, x: Float[Tensor, "frames channels height width"], z: Float[Tensor, "frames condition"]
    ) -> Float[Tensor, "frames channels height width"]:
        scale, shift = self.head(z).chunk(2, dim=-1)
        # By hand: the gradient of torch's instance_norm is wrong on CPU where channels are innermost in memory (2.7.1).
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
        scale = scale * torch.rsqrt(variance + INSTANCE_EPSILON)
        return affine(x, scale, shift - mean * scale)


class UpsampleBlock(nn.Module):
    """NeRV block: convolution, pixel shuffle by the stride, activation; modulated before (instance) or after (TAT).

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output.
        stride: Upsampling factor; 1 keeps the size.
        kernel: Odd kernel size.
        activation: ``sin`` makes it the sinusoidal block of Boosting-NeRV.
        modulation: How the frame's condition enters.
        condition: Width of the condition, unused without modulation.
        factorised: Two thinner convolutions instead of one (first stage of E-NeRV).
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        kernel: int,
        activation: ActivationName,
        modulation: ModulationName,
        condition: int,
        factorised: bool = False,
    ) -> None:
        super().__init__()
        self.activation = activation
        if not factorised:
            self.conv = self._shuffle_conv(channels_in, channels_out, stride, kernel)
        elif channels_in <= channels_out:
            thin = channels_in // 4
            self.conv = nn.Sequential(
                self._shuffle_conv(channels_in, thin, stride, kernel), nn.Conv2d(thin, channels_out, 3, padding=1)
            )
        else:
            self.conv = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 3, padding=1),
                self._shuffle_conv(channels_out, channels_out, stride, kernel),
            )
        self.instance = InstanceModulation(channels_in, condition, activation) if modulation == "instance" else None
        self.tat = TATResidual(channels_out, condition) if modulation == "tat" else None

    @staticmethod
    def _shuffle_conv(channels_in: int, channels_out: int, stride: int, kernel: int) -> nn.Module:
        conv = nn.Conv2d(channels_in, channels_out * stride**2, kernel, padding=kernel // 2)
        return conv if stride == 1 else nn.Sequential(conv, nn.PixelShuffle(stride))

    def forward(
        self, x: Float[Tensor, "frames channels_in height_in width_in"], z: Float[Tensor, "frames condition"]
    ) -> Float[Tensor, "frames channels_out height_out width_out"]:
        if self.instance is not None:
            x = self.instance(x, z)
        x = ACTIVATIONS[self.activation](self.conv(x))
        return x if self.tat is None else self.tat(x, z)
