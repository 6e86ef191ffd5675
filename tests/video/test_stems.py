"""What decoders start from: shapes, order of cells and tokens, numbers, gradients."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nerfstudio_ext.video.stems import ContentStem, GridStem, TimeStem, Transformer
from nerfstudio_ext.video.time_encoding import positional_encoding

GRID = (2, 3)


def grid_stem(channels=6, tokens=8, activation="sin"):
    return GridStem(code_channels=10, base=1.25, tokens=tokens, channels=channels, grid=GRID, activation=activation)


def test_time_stem_fills_the_grid_row_by_row():
    stem = TimeStem(10, 7, 4, GRID, "sin")
    code = torch.randn(2, 10)
    flat = stem.mlp(code)
    x = stem(code)
    assert x.shape == (2, 4, *GRID)
    for channel in range(4):
        for row in range(2):
            for column in range(3):
                assert torch.equal(x[:, channel, row, column], flat[:, channel * 6 + row * 3 + column])


def test_time_stem_size():
    """160 -> 256 -> 9 16 f (card section 2.6)."""
    stem = TimeStem(160, 256, 15, (9, 16), "sin")
    assert sum(p.numel() for p in stem.parameters()) == 160 * 256 + 256 + 257 * 9 * 16 * 15


@pytest.mark.parametrize("channels", [6, 8])
def test_grid_stem_shape(channels):
    stem = grid_stem(channels=channels)
    assert stem(torch.randn(2, 10)).shape == (2, channels, *GRID)
    assert isinstance(stem.project, nn.Identity) == (channels == 8)


def test_grid_stem_codes_every_cell_by_row_and_column():
    code = grid_stem().space_code
    rows = positional_encoding([Fraction(i, 2) for i in range(2)], 1.25, 5)
    columns = positional_encoding([Fraction(j, 3) for j in range(3)], 1.25, 5)
    for row in range(2):
        for column in range(3):
            assert torch.equal(code[row * 3 + column], torch.cat([rows[row], columns[column]]))


def test_grid_stem_cells_keep_their_place():
    """The token of a row and column ends in that cell: with the mixing switched off, changing one cell's code changes
    that cell alone."""
    stem = grid_stem()
    for transformer in (stem.mix_space, stem.mix_time):
        nn.init.zeros_(transformer.out.weight)
    code = torch.randn(1, 10)
    before = stem(code)
    stem.space_code[1 * 3 + 2] += 0.5
    changed = (stem(code) - before).abs().amax(dim=(0, 1)) > 1e-6
    assert changed.tolist() == [[False, False, False], [False, False, True]]


def test_grid_stem_multiplies_by_time_between_the_transformers():
    stem = grid_stem()
    code = torch.randn(2, 10)
    space = stem.mix_space(torch.sin(stem.space_mlp.layers[0](stem.space_code))[None])[0]
    for frame in range(2):
        tokens = stem.mix_time((space * stem.time_mlp(code[frame]))[None])[0]
        cells = torch.sin(stem.project.layers[0](tokens))
        torch.testing.assert_close(stem(code)[frame].flatten(1).T, cells)


def test_grid_stem_depends_on_time():
    stem = grid_stem()
    first, second = stem(torch.randn(2, 10))
    assert (first - second).abs().max() > 1e-4


def test_transformer_numbers():
    """Attention head by head, and no normalisation anywhere."""
    block = Transformer(8, heads=2, head_channels=4)
    x = torch.randn(2, 5, 8)
    q, k, v = (x @ w.T for w in block.qkv.weight.chunk(3))
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(q[..., head] @ k[..., head].transpose(1, 2) / 2, dim=-1)
        heads.append(weights @ v[..., head])
    y = x + block.out(torch.cat(heads, dim=-1))
    expected = y + block.feed_forward[2](F.gelu(block.feed_forward[0](y)))
    torch.testing.assert_close(block(x), expected)


def test_transformer_size():
    """Card section 2.7: one head and eight heads of 64 channels, no bias on q, k, v; feed-forward 128 -> 64 -> 128."""
    for heads in (1, 8):
        inner = heads * 64
        expected = 3 * 128 * inner + inner * 128 + 128 + 128 * 64 + 64 + 64 * 128 + 128
        assert sum(p.numel() for p in Transformer(128, heads).parameters()) == expected


@pytest.mark.parametrize("condition", [None, 6])
def test_content_stem(condition):
    stem = ContentStem(4, 5, "sin", condition)
    embedding, z = torch.randn(2, 4, *GRID), torch.randn(2, 6)
    x = torch.sin(F.conv2d(embedding, stem.conv.weight, stem.conv.bias))
    expected = x if condition is None else stem.tat(x, z)
    assert stem.conv.kernel_size == (1, 1)
    torch.testing.assert_close(stem(embedding, z), expected)


def gradcheck(module, *inputs):
    module = module.double()
    inputs = [x.double().requires_grad_() for x in inputs]
    names = [name for name, _ in module.named_parameters()]

    def call(*tensors):
        values, parameters = tensors[: len(inputs)], tensors[len(inputs) :]
        return torch.func.functional_call(module, dict(zip(names, parameters)), tuple(values))

    return torch.autograd.gradcheck(call, (*inputs, *module.parameters()), fast_mode=True)


def test_gradcheck():
    assert gradcheck(TimeStem(4, 3, 2, GRID, "gelu"), torch.randn(2, 4))
    assert gradcheck(grid_stem(channels=3, tokens=4), torch.randn(2, 10))
    assert gradcheck(ContentStem(2, 3, "sin", 4), torch.randn(2, 2, *GRID), torch.randn(2, 4))
