"""`feature_grid.interpolate` as warp kernels, on CPU and CUDA, with the derivatives that an eikonal loss needs."""

# Kernels are written in warp's language, whose types are no Python types.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false

from typing import Any, Optional, Tuple, cast

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

# Without a greeting and a line for each kernel. What warp says of a missing CUDA driver, it says all the same.
wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
wp.init()


@wp.func
def _cell(x: wp.vec3, size: int):
    """First corner of the cell, place in it (0 to 1), and how fast that moves with x (0 outside the cube)."""
    half = float(size - 1) * 0.5
    first = wp.vec3i()
    share = wp.vec3()
    speed = wp.vec3()
    for k in range(3):
        p = (wp.clamp(x[k], -1.0, 1.0) + 1.0) * half
        first[k] = wp.min(int(p), size - 2)
        share[k] = wp.where(wp.isnan(x[k]), x[k], p - float(first[k]))
        speed[k] = wp.where(wp.abs(x[k]) <= 1.0, half, 0.0)
    return first, share, speed


@wp.func
def _corner(corner: int, first: wp.vec3i, share: wp.vec3, speed: wp.vec3, size: int):
    """Row of a corner within its grid, its three factors of the weight, and their derivatives."""
    row = int(0)  # noqa: RUF046, UP018 (warp takes a bare 0 for a constant)
    factor = wp.vec3()
    slope = wp.vec3()
    for k in range(3):
        far = (corner >> (2 - k)) & 1
        row = row * size + first[k] + far
        factor[k] = wp.where(far == 1, share[k], 1.0 - share[k])
        slope[k] = wp.where(far == 1, speed[k], -speed[k])
    return row, factor, slope


@wp.func
def _gradient(factor: wp.vec3, slope: wp.vec3):
    """Derivative of a corner's weight by the point."""
    return wp.vec3(slope[0] * factor[1] * factor[2], factor[0] * slope[1] * factor[2], factor[0] * factor[1] * slope[2])


@wp.func
def _weight(value: float, along: wp.vec3, factor: wp.vec3, slope: wp.vec3):
    """value times a corner's weight, plus its derivative along a direction."""
    return value * factor[0] * factor[1] * factor[2] + wp.dot(along, _gradient(factor, slope))


@wp.kernel
def _mix(
    x: wp.array(dtype=wp.vec3), along: wp.array(dtype=wp.vec3), value: float, table: wp.array(dtype=wp.vec4),
    sizes: wp.array(dtype=int), starts: wp.array(dtype=int), out: wp.array2d(dtype=wp.vec4),
):  # fmt: skip
    """value times the features, plus their derivative along a direction."""
    i, grid = wp.tid()
    first, share, speed = _cell(x[i], sizes[grid])
    total = wp.vec4()
    for corner in range(8):
        row, factor, slope = _corner(corner, first, share, speed, sizes[grid])
        weight = _weight(value, along[i], factor, slope)
        total += weight * table[starts[grid] + row]
    out[i, grid] = total


@wp.kernel
def _spread(
    x: wp.array(dtype=wp.vec3), along: wp.array(dtype=wp.vec3), value: float, grad: wp.array2d(dtype=wp.vec4),
    sizes: wp.array(dtype=int), starts: wp.array(dtype=int), out: wp.array(dtype=wp.vec4),
):  # fmt: skip
    """The transpose of `_mix`: gradients of the features back to the table."""
    i, grid = wp.tid()
    first, share, speed = _cell(x[i], sizes[grid])
    for corner in range(8):
        row, factor, slope = _corner(corner, first, share, speed, sizes[grid])
        weight = _weight(value, along[i], factor, slope)
        wp.atomic_add(out, starts[grid] + row, weight * grad[i, grid])


@wp.kernel
def _slope(
    x: wp.array(dtype=wp.vec3), grad: wp.array2d(dtype=wp.vec4), table: wp.array(dtype=wp.vec4),
    sizes: wp.array(dtype=int), starts: wp.array(dtype=int), out: wp.array(dtype=wp.vec3),
):  # fmt: skip
    """Gradients of the features back to the points."""
    i = wp.tid()
    total = wp.vec3()
    for grid in range(sizes.shape[0]):
        first, share, speed = _cell(x[i], sizes[grid])
        for corner in range(8):
            row, factor, slope = _corner(corner, first, share, speed, sizes[grid])
            total += wp.dot(grad[i, grid], table[starts[grid] + row]) * _gradient(factor, slope)
    out[i] = total


@wp.kernel
def _bend(
    x: wp.array(dtype=wp.vec3), along: wp.array(dtype=wp.vec3), grad: wp.array2d(dtype=wp.vec4),
    table: wp.array(dtype=wp.vec4), sizes: wp.array(dtype=int), starts: wp.array(dtype=int),
    out: wp.array(dtype=wp.vec3),
):  # fmt: skip
    """Derivative of `_slope` by the points, along a direction; trilinear functions bend between two axes only."""
    i = wp.tid()
    total = wp.vec3()
    for grid in range(sizes.shape[0]):
        first, share, speed = _cell(x[i], sizes[grid])
        for corner in range(8):
            row, f, s = _corner(corner, first, share, speed, sizes[grid])
            xy, xz, yz = s[0] * s[1] * f[2], s[0] * f[1] * s[2], f[0] * s[1] * s[2]
            a = along[i]
            turned = wp.vec3(a[1] * xy + a[2] * xz, a[0] * xy + a[2] * yz, a[0] * xz + a[1] * yz)
            total += wp.dot(grad[i, grid], table[starts[grid] + row]) * turned
    out[i] = total


def require(device: str) -> None:
    """Refuse kinds of devices that warp does not reach.

    Raises:
        RuntimeError: Another kind than cpu and cuda, or a CUDA driver that is missing or too old for this warp.
    """
    if device != "cpu" and not (device == "cuda" and wp.is_cuda_available()):
        raise RuntimeError(f"it finds no device {device}, or its driver is too old")


Grids = Tuple[Int[Tensor, "grids"], Int[Tensor, "grids"]]
"""Sizes and first rows, as 32-bit numbers."""


def _as_array(tensor: Tensor) -> wp.array:
    kind = {3: wp.vec3, 4: wp.vec4}[tensor.shape[-1]] if tensor.is_floating_point() else wp.int32
    return wp.from_torch(tensor.detach().contiguous(), dtype=kind, requires_grad=False)


def _launch(kernel: Any, shape: Tuple[int, ...], out: Tensor, *inputs: Any) -> Tensor:
    arrays = [_as_array(value) if isinstance(value, Tensor) else value for value in inputs]
    # Torch's own stream, or kernels and what torch does around them could overtake one another.
    stream = wp.stream_from_torch(torch.cuda.current_stream(out.device)) if out.is_cuda else None
    device = wp.device_from_torch(out.device)
    wp.launch(kernel, dim=shape, inputs=[*arrays, _as_array(out)], device=device, stream=stream)
    return out


def _mixed(x: Tensor, along: Tensor, value: float, table: Tensor, grids: Grids) -> Tensor:
    out = x.new_empty(len(x), len(grids[0]), 4)
    return _launch(_mix, out.shape[:2], out, x, along, value, table, *grids).flatten(1)


def _spread_out(x: Tensor, along: Tensor, value: float, grad: Tensor, table: Tensor, grids: Grids) -> Tensor:
    grad = grad.reshape(len(x), -1, 4)
    return _launch(_spread, grad.shape[:2], torch.zeros_like(table), x, along, value, grad, *grids)


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, *grids: Tensor) -> Tensor:
        ctx.save_for_backward(x, table, *grids)
        return _mixed(x, torch.zeros_like(x), 1.0, table, (grids[0], grids[1]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, table, *grids = ctx.saved_tensors
        by_x = _Slope.apply(x, grads[0], table, *grids) if ctx.needs_input_grad[0] else None
        by_table = _Spread.apply(x, grads[0], table, *grids) if ctx.needs_input_grad[1] else None
        return by_x, by_table, None, None


class _Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor, table: Tensor, *grids: Tensor) -> Tensor:
        ctx.save_for_backward(x, grad, table, *grids)
        return _launch(_slope, (len(x),), torch.empty_like(x), x, grad.reshape(len(x), -1, 4), table, *grids)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, along: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, grad, table, *grids = ctx.saved_tensors
        pair = (grids[0], grids[1])
        by_x = _launch(_bend, (len(x),), torch.empty_like(x), x, along, grad.reshape(len(x), -1, 4), table, *grids)
        by_grad = _mixed(x, along, 0.0, table, pair)
        return by_x, by_grad, _spread_out(x, along, 0.0, grad, table, pair), None, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor, table: Tensor, *grids: Tensor) -> Tensor:
        return _spread_out(x, torch.zeros_like(x), 1.0, grad, table, (grids[0], grids[1]))

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Tuple[Optional[Tensor], ...]:
        raise NotImplementedError("The table's gradient cannot be differentiated again; no loss here needs it.")


def interpolate(
    x: Float[Tensor, "n 3"],
    table: Float[Tensor, "rows 4"],
    sizes: Int[Tensor, "grids"],
    starts: Int[Tensor, "grids"],
) -> Float[Tensor, "n width"]:
    """See `feature_grid.interpolate`; single precision, twice differentiable."""
    return cast(Tensor, _Interpolate.apply(x, table, sizes, starts))
