"""The ConvNeXt encoder: shapes, size, start, invariances, gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nerfstudio_ext.video.encoder import ChannelNorm, ConvNeXtBlock, ConvNeXtEncoder


@pytest.mark.parametrize("strides", [(5, 2, 2), (2, 2), (3, 2, 2), (4,)])
def test_shape(strides):
    factor = math.prod(strides)
    encoder = ConvNeXtEncoder(strides, channels=8, embedding_channels=5)
    frames = torch.rand(2, 3, 2 * factor, 3 * factor)
    assert encoder(frames).shape == (2, 5, 2, 3)


def test_published_size():
    """About 0.21 M numbers (card section 2.5)."""
    encoder = ConvNeXtEncoder((5, 2, 2, 2, 2))
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(0.21e6, rel=0.02)


def test_starts_as_the_papers_do():
    encoder = ConvNeXtEncoder((5, 2, 2), channels=64)
    for module in encoder.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            assert torch.equal(module.bias, torch.zeros_like(module.bias))
            assert float(module.weight.std()) == pytest.approx(0.02, rel=0.15)
        if isinstance(module, ConvNeXtBlock):
            assert torch.equal(module.layer_scale, torch.full_like(module.layer_scale, 1e-6))


def test_first_stage_normalises_after_its_convolution_later_ones_before():
    encoder = ConvNeXtEncoder((3, 2, 2), channels=8)
    kinds = [[type(layer) for layer in stage] for stage in encoder.patchify]
    assert kinds == [[nn.Conv2d, ChannelNorm], [ChannelNorm, nn.Conv2d], [ChannelNorm, nn.Conv2d]]


def test_channel_norm_normalises_every_pixel():
    norm = ChannelNorm(6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 + 2 * torch.randn(2, 6, 3, 4)
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    expected = (x - mean) / torch.sqrt(variance + 1e-6) * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)


def test_block_numbers():
    block = ConvNeXtBlock(4)
    nn.init.normal_(block.layer_scale)
    x = torch.randn(2, 4, 5, 6)
    y = F.conv2d(x, block.depthwise.weight, block.depthwise.bias, padding=3, groups=4)
    y = block.norm(y)
    y = F.gelu(F.conv2d(y, block.expand.weight[:, :, None, None], block.expand.bias))
    y = F.conv2d(y, block.reduce.weight[:, :, None, None], block.reduce.bias)
    torch.testing.assert_close(block(x), x + block.layer_scale[:, None, None] * y)


def test_memory_format_changes_speed_only():
    torch.manual_seed(0)
    encoder = ConvNeXtEncoder((5, 2, 2), channels=8)
    frames = torch.rand(2, 3, 40, 60)
    plain = encoder(frames)
    inner = encoder.to(memory_format=torch.channels_last)(frames.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(inner, plain, rtol=1e-4, atol=1e-6)


def test_moving_by_a_cell_moves_the_embedding():
    """Away from the borders the encoder is convolutional."""
    encoder = ConvNeXtEncoder((2, 2), channels=4, embedding_channels=3).double()
    for block in encoder.blocks:
        nn.init.ones_(block.layer_scale)
    frames = torch.rand(1, 3, 80, 80, dtype=torch.float64)
    moved = encoder(frames.roll(4, dims=-1))
    torch.testing.assert_close(moved[..., 8:13, 8:13], encoder(frames)[..., 8:13, 7:12])


def test_gradcheck():
    encoder = ConvNeXtEncoder((2, 2), channels=3, embedding_channels=2).double()
    for p in encoder.parameters():
        nn.init.normal_(p, std=0.5)
    frames = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in encoder.named_parameters()]

    def call(frames, *parameters):
        return torch.func.functional_call(encoder, dict(zip(names, parameters)), frames)

    assert torch.autograd.gradcheck(call, (frames, *encoder.parameters()), fast_mode=True)
