"""Decoder blocks: shapes, starting points, numbers against the formula, gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nerfstudio_ext.video.blocks import (
    AffineHead,
    InstanceModulation,
    Sequential1x1,
    TATResidual,
    UpsampleBlock,
    affine,
)

CONDITION = 6
BLOCK = dict(kernel=3, activation="sin", modulation="tat", condition=CONDITION)


def features(channels=4, size=(3, 5), frames=2, dtype=torch.float32):
    return torch.randn(frames, channels, *size, dtype=dtype), torch.randn(frames, CONDITION, dtype=dtype)


def zero(module):
    for p in module.parameters():
        nn.init.zeros_(p)


def gradcheck(module, channels, frames=2):
    """Analytic against numerical gradients, of the inputs and of every parameter, in float64."""
    module = module.double()
    x, z = features(channels, size=(2, 3), frames=frames, dtype=torch.float64)
    x, z = x.contiguous(memory_format=torch.channels_last).requires_grad_(), z.requires_grad_()
    names = [name for name, _ in module.named_parameters()]

    def call(x, z, *parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters)), (x, z))

    return torch.autograd.gradcheck(call, (x, z, *module.parameters()), fast_mode=True)


class TestAffine:
    def test_numbers(self):
        x, _ = features()
        scale, shift = torch.randn(2, 4), torch.randn(2, 4)
        for frame in range(2):
            for channel in range(4):
                expected = x[frame, channel] * scale[frame, channel] + shift[frame, channel]
                torch.testing.assert_close(affine(x, scale, shift)[frame, channel], expected)

    def test_head_without_weights_is_the_identity(self):
        head = AffineHead(CONDITION, 4)
        zero(head)
        scale, shift = head(torch.randn(2, CONDITION))
        assert torch.equal(scale, torch.ones(2, 4)) and torch.equal(shift, torch.zeros(2, 4))

    def test_fresh_head_stays_near_the_identity(self):
        scale, shift = AffineHead(32, 64)(torch.sin(torch.randn(8, 32)))
        assert (scale - 1).abs().mean() < 0.3 and shift.abs().mean() < 0.3

    def test_head_size(self):
        """Card section 2.3: two hidden layers 32 -> 32 and two heads 32 -> C."""
        assert sum(p.numel() for p in AffineHead(32, 50).parameters()) == 2 * (32 * 32 + 32) + 2 * (32 * 50 + 50)


class TestTATResidual:
    @pytest.mark.parametrize("frames", [1, 2])
    def test_numbers(self, frames):
        block = TATResidual(4, CONDITION)
        x, z = features(frames=frames)
        (scale_in, shift_in), (scale_out, shift_out) = block.affine_in(z), block.affine_out(z)
        y = x * scale_in[:, :, None, None] + shift_in[:, :, None, None]
        y = F.conv2d(y, block.conv_in.weight, block.conv_in.bias, padding=1)
        y = 0.5 * y * (1 + torch.erf(y / 2**0.5))
        y = y * scale_out[:, :, None, None] + shift_out[:, :, None, None]
        y = x + F.conv2d(y, block.conv_out.weight, block.conv_out.bias, padding=1)
        torch.testing.assert_close(block(x, z), y)

    def test_zero_output_convolution_is_the_identity(self):
        block = TATResidual(4, CONDITION)
        zero(block.conv_out)
        x, z = features()
        assert torch.equal(block(x, z), x)

    def test_zero_heads_leave_a_plain_residual_block_without_time(self):
        """Near the identity in the modulation: with untrained heads, time does not enter at all."""
        block = TATResidual(4, CONDITION)
        zero(block.affine_in)
        zero(block.affine_out)
        x, z = features()
        torch.testing.assert_close(block(x, z), x + block.conv_out(F.gelu(block.conv_in(x))))
        assert torch.equal(block(x, z), block(x, torch.randn_like(z)))

    def test_condition_changes_the_result(self):
        block = TATResidual(4, CONDITION)
        x, z = features()
        assert (block(x, z) - block(x, z + 1)).abs().max() > 1e-3

    def test_size(self):
        """Card section 2.3."""
        channels = 50
        expected = 2 * (9 * channels**2 + channels) + 4 * (32 * 32 + 32) + 4 * (32 * channels + channels)
        assert sum(p.numel() for p in TATResidual(channels, 32).parameters()) == expected

    @pytest.mark.parametrize("frames", [1, 2])
    def test_gradcheck(self, frames):
        assert gradcheck(TATResidual(3, CONDITION), 3, frames)


class TestInstanceModulation:
    def test_numbers(self):
        block = InstanceModulation(4, CONDITION, "gelu")
        x, z = features()
        scale, shift = F.gelu(block.head.layers[0](z)).chunk(2, dim=1)
        for frame in range(2):
            for channel in range(4):
                plane = x[frame, channel]
                plane = (plane - plane.mean()) / torch.sqrt(plane.var(unbiased=False) + 1e-5)
                expected = plane * scale[frame, channel] + shift[frame, channel]
                torch.testing.assert_close(block(x, z)[frame, channel], expected)

    def test_same_in_training_and_evaluation(self):
        block = InstanceModulation(4, CONDITION, "gelu")
        x, z = features()
        assert torch.equal(block.train()(x, z), block.eval()(x, z))

    def test_gradcheck(self):
        assert gradcheck(InstanceModulation(3, CONDITION, "gelu"), 3)


class TestUpsampleBlock:
    @pytest.mark.parametrize("stride", [1, 2, 3, 5])
    @pytest.mark.parametrize("kernel", [1, 3, 5])
    @pytest.mark.parametrize("modulation", ["none", "instance", "tat"])
    def test_shape(self, stride, kernel, modulation):
        block = UpsampleBlock(4, 3, stride, kernel, "sin", modulation, CONDITION)
        x, z = features()
        assert block(x, z).shape == (2, 3, 3 * stride, 5 * stride)

    def test_pixel_shuffle_order(self):
        """Row and column inside a cell are the minor digits of the convolution's channel."""
        block = UpsampleBlock(2, 3, 2, 1, "gelu", "none", CONDITION)
        x, z = features(2)
        raw, y = F.gelu(block.conv[0](x)), block(x, z)
        for channel in range(3):
            for row in range(2):
                for column in range(2):
                    expected = raw[:, 4 * channel + 2 * row + column]
                    torch.testing.assert_close(y[:, channel, row::2, column::2], expected)

    def test_sine_acts_before_the_residual_block(self):
        block = UpsampleBlock(4, 3, 2, **BLOCK)
        x, z = features()
        expected = block.tat(torch.sin(F.pixel_shuffle(block.conv[0](x), 2)), z)
        torch.testing.assert_close(block(x, z), expected)

    def test_instance_modulation_acts_before_the_convolution(self):
        block = UpsampleBlock(4, 3, 2, 3, "gelu", "instance", CONDITION)
        x, z = features()
        expected = F.gelu(F.pixel_shuffle(block.conv[0](block.instance(x, z)), 2))
        torch.testing.assert_close(block(x, z), expected)

    @pytest.mark.parametrize("activation, bound", [("sin", 1.0), ("gelu", None)])
    def test_activation(self, activation, bound):
        block = UpsampleBlock(4, 3, 2, 3, activation, "none", CONDITION)
        x, z = features()
        y = block(100 * x, z)
        assert y.max() <= 1 if bound else y.max() > 2
        assert y.min() < -0.9 if bound else y.min() > -0.2

    def test_initialised_as_torch_does(self):
        """The boosted decoders need no sine-specific initialisation (card section 2.4)."""
        conv = UpsampleBlock(16, 8, 2, **BLOCK).conv[0]
        bound = (1 / (16 * 9)) ** 0.5
        assert 0.95 * bound < conv.weight.abs().max() <= bound
        assert conv.bias.abs().max() <= bound and conv.bias.std() > 0.3 * bound

    @pytest.mark.parametrize(
        "channels_in, channels_out, weights", [(8, 24, [(18, 8), (24, 2)]), (8, 6, [(6, 8), (54, 6)])]
    )
    def test_factorised(self, channels_in, channels_out, weights):
        """Thin and shuffled first where the block widens, shuffled last where it narrows."""
        block = UpsampleBlock(channels_in, channels_out, 3, 3, "sin", "none", CONDITION, factorised=True)
        x, z = features(channels_in)
        assert block(x, z).shape == (2, channels_out, 9, 15)
        assert [p.shape for p in block.parameters() if p.dim() == 4] == [(*pair, 3, 3) for pair in weights]

    @pytest.mark.parametrize("modulation", ["none", "instance", "tat"])
    @pytest.mark.parametrize("activation", ["sin", "gelu"])
    def test_gradcheck(self, modulation, activation):
        block = UpsampleBlock(3, 2, 2, 3, activation, modulation, CONDITION)
        if modulation == "none":
            block = WithoutCondition(block)
        assert gradcheck(block, 3)


class WithoutCondition(nn.Module):
    """Gives the unused condition a gradient, which gradcheck wants of every input."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x, z):
        return self.block(x, z) + 0 * z.sum()


class TestSequential1x1:
    def test_equals_1x1_convolutions(self):
        """The papers write these as convolutions over single pixels."""
        layers = Sequential1x1((5, 7, 3), "sin")
        x = torch.randn(2, 5)
        y = x[:, :, None, None]
        for layer in layers.layers:
            y = torch.sin(F.conv2d(y, layer.weight[:, :, None, None], layer.bias))
        torch.testing.assert_close(layers(x), y[:, :, 0, 0])

    def test_condition_branch_size(self):
        """Card section 2.2."""
        assert sum(p.numel() for p in Sequential1x1((160, 64, 32), "sin").parameters()) == 12_384

    def test_last_layer_is_activated(self):
        assert Sequential1x1((5, 3), "sin")(100 * torch.randn(50, 5)).abs().max() <= 1
