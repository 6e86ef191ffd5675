"""A 3x3 convolution of a scaled and shifted frame, without ever writing the scaled and shifted frame.

The scale moves into the weights. The shift is a constant per channel, so its response is one number per output channel,
except on the outermost ring of pixels, where the taps that fall on the zero padding must not respond.
"""

from typing import Any, Tuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class AffineConv(torch.autograd.Function):
    """conv(scale * x + shift) + bias with zero padding of one pixel, for one frame; first derivatives only.

    Saves the elementwise passes over the frame, two forward and seven backward, that the plain form needs.

    Args (of ``apply``):
        x: One frame of features, [1, channels_in, height, width], at least two pixels high and wide.
        scale: [channels_in].
        shift: [channels_in].
        weight: [channels_out, channels_in, 3, 3].
        bias: [channels_out].
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "1 channels_in height width"],
        scale: Float[Tensor, "channels_in"],
        shift: Float[Tensor, "channels_in"],
        weight: Float[Tensor, "channels_out channels_in 3 3"],
        bias: Float[Tensor, "channels_out"],
    ) -> Float[Tensor, "1 channels_out height width"]:
        taps = torch.einsum("oiyx,i->oyx", weight, shift)
        y = F.conv2d(x, _scaled(weight, scale), bias + taps.sum(dim=(1, 2)), padding=1)
        down, right = y.shape[-2] - 1, y.shape[-1] - 1
        y[0, :, ::down] -= taps.sum(dim=2)[:, ::2, None]
        y[0, :, :, ::right] -= taps.sum(dim=1)[:, None, ::2]
        # A corner lost its outermost tap with its row and with its column.
        y[0, :, ::down, ::right] += taps[:, ::2, ::2]
        ctx.save_for_backward(x, scale, shift, weight)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, ...]:
        x, scale, shift, weight = ctx.saved_tensors
        channels_out = weight.shape[0]
        grad_x, grad_scaled, grad_bias = torch.ops.aten.convolution_backward(  # pyright: ignore[reportCallIssue]
            grad, x, _scaled(weight, scale), [channels_out], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True] * 3
        )
        # Gradient that each tap's response to the shift meets: all, less the ring pixels where the tap lies outside.
        down, right = grad.shape[-2] - 1, grad.shape[-1] - 1
        taps = grad_bias[:, None, None].repeat(1, 3, 3)
        taps[:, ::2] -= grad[0, :, ::down].sum(dim=2)[:, :, None]
        taps[:, :, ::2] -= grad[0, :, :, ::right].sum(dim=1)[:, None]
        taps[:, ::2, ::2] += grad[0, :, ::down, ::right]
        grad_weight = grad_scaled * scale[:, None, None] + taps[:, None] * shift[:, None, None]
        grad_scale = (grad_scaled * weight).sum(dim=(0, 2, 3))
        grad_shift = torch.einsum("oyx,oiyx->i", taps, weight)
        return grad_x, grad_scale, grad_shift, grad_weight, grad_bias


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    return weight * scale[:, None, None]
