"""Signed distance networks that begin as a sphere (SAL, Atzmon & Lipman 2020), as IDR and VolSDF use them."""

import math
from typing import Any, Optional, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from nerfstudio_ext.engine.errors import InputError


def encode_frequencies(v: Float[Tensor, "*batch dims"], num_frequencies: int) -> Float[Tensor, "*batch encoded"]:
    """[v, sin v, cos v, sin 2v, cos 2v, ..., cos 2^(L-1) v]: the raw input first, no factor pi.

    nerfstudio's own encoding multiplies by 2 pi and puts the raw input last; the sphere initialisation needs this form.
    """
    parts = [v]
    for octave in range(num_frequencies):
        parts += [torch.sin(v * 2.0**octave), torch.cos(v * 2.0**octave)]
    return torch.cat(parts, dim=-1)


def encoded_dims(dims: int, num_frequencies: int) -> int:
    """Width of `encode_frequencies`."""
    return dims * (1 + 2 * num_frequencies)


class _SharpSoftplus(torch.autograd.Function):
    """max(x, 0) + log(1 + exp(-100 |x|)) / 100; the backward pass can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        # exp never meets denormal numbers, on which CPUs are several times slower, and log is quicker than log1p.
        return x.abs().mul_(-100).clamp_(min=-30).exp_().add_(1).log_().div_(100).add_(x.clamp(min=0))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * torch.sigmoid(100 * ctx.saved_tensors[0])


class SharpSoftplus(nn.Module):
    """Softplus with beta 100, to float precision, about three times quicker on a CPU than torch's."""

    def forward(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return cast(Tensor, _SharpSoftplus.apply(x))


class SdfNetwork(nn.Module):
    """Fully connected network whose first output is close to |x| - radius before any training.

    Args:
        in_dim: Width of the input; its first three columns are the raw position, everything else starts with zero
            weight, unless it is one of the `features`.
        width: Hidden width.
        layers: Hidden layers.
        out_dim: Outputs, the distance first.
        radius: Radius of the initial sphere in world units.
        skip: Hidden layer (counted from 0) that sees the input again, scaled as in DeepSDF; none: no skip.
        features: Columns of trained features that are close to 0 at the start; their weights in the first layer are
            not, or neither would ever move.
    """

    def __init__(
        self,
        in_dim: int,
        width: int,
        layers: int,
        out_dim: int,
        radius: float,
        skip: Optional[int] = None,
        features: range = range(0),
    ) -> None:
        super().__init__()
        if skip is not None and not (0 < skip < layers and in_dim < width):
            raise InputError(
                f"--pipeline.model.field.skip {skip} must be one of the hidden layers 1 to {layers - 1}, and what it "
                f"sees again ({in_dim} numbers) narrower than the layers ({width})."
            )
        self.skip = skip
        self.activation = SharpSoftplus()
        linears = []
        for k in range(layers + 1):
            inputs = in_dim if k == 0 else width
            outputs = out_dim if k == layers else width - in_dim if k + 1 == skip else width
            linear = nn.Linear(inputs, outputs)
            with torch.no_grad():
                if k == layers:
                    linear.weight.normal_(math.sqrt(math.pi / inputs), 1e-4)
                    linear.bias.fill_(-radius)
                else:
                    linear.weight.normal_(0.0, math.sqrt(2 / outputs))
                    linear.bias.zero_()
                if k == 0:
                    linear.weight[:, 3 : features.start] = 0
                    linear.weight[:, max(3, features.stop) :] = 0
                elif k == skip:
                    linear.weight[:, width - in_dim + 3 :] = 0
            linears.append(weight_norm(linear))
        self.linears = nn.ModuleList(linears)

    def forward(self, x: Float[Tensor, "*batch in_dim"]) -> Float[Tensor, "*batch out_dim"]:
        h = x
        for k, linear in enumerate(self.linears):
            if k == self.skip:
                h = torch.cat([h, x], dim=-1) / math.sqrt(2)
            h = linear(h)
            if k < len(self.linears) - 1:
                h = self.activation(h)
        return h
