"""The fused convolution of a scaled and shifted frame against the two steps that it replaces."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nerfstudio_ext.video.affine_conv import AffineConv
from nerfstudio_ext.video.blocks import affine_conv

# Frames in which rows, columns or corners of the padding ring meet.
SIZES = [(2, 2), (2, 4), (3, 5), (6, 7)]
NAMES = ("x", "scale", "shift", "weight", "bias")


def inputs(size, layout=torch.contiguous_format, dtype=torch.float64):
    x = torch.randn(1, 3, *size, dtype=dtype).contiguous(memory_format=layout)
    weight = torch.randn(4, 3, 3, 3, dtype=dtype).contiguous(memory_format=layout)
    others = (torch.randn(n, dtype=dtype) for n in (3, 3, 4))
    scale, shift, bias = others
    return [t.requires_grad_() for t in (x, scale, shift, weight, bias)]


def plain(x, scale, shift, weight, bias):
    return F.conv2d(x * scale[:, None, None] + shift[:, None, None], weight, bias, padding=1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", SIZES)
def test_equals_two_steps(size, layout):
    tensors = inputs(size, layout)
    ours, theirs = AffineConv.apply(*tensors), plain(*tensors)
    torch.testing.assert_close(ours, theirs)
    response = torch.randn_like(theirs)
    gradients = torch.autograd.grad(ours, tensors, response)
    for name, gradient, expected in zip(NAMES, gradients, torch.autograd.grad(theirs, tensors, response)):
        torch.testing.assert_close(gradient, expected, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("size", SIZES)
def test_gradcheck(size):
    assert torch.autograd.gradcheck(AffineConv.apply, inputs(size), fast_mode=True)


def test_layout_is_kept():
    x, *others = inputs((6, 7), torch.channels_last)
    assert AffineConv.apply(x, *others).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("frames, size", [(1, (5, 6)), (2, (5, 6)), (1, (1, 1)), (1, (1, 4)), (1, (4, 1))])
def test_batches_and_thin_frames_take_the_plain_form(frames, size):
    conv = nn.Conv2d(3, 4, 3, padding=1).double()
    x = torch.randn(frames, 3, *size, dtype=torch.float64)
    scale, shift = torch.randn(2, frames, 3, dtype=torch.float64)
    expected = torch.cat([plain(x[k : k + 1], scale[k], shift[k], conv.weight, conv.bias) for k in range(frames)])
    torch.testing.assert_close(affine_conv(x, scale, shift, conv), expected)
