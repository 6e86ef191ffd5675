"""Strides, padding and widths: the published choices, every size, the widest network that fits."""

import math

import pytest
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video.sizing import FrameLayout, choose_strides, largest_width, stage_widths


@pytest.mark.parametrize(
    "height, width, strides",
    [(720, 1280, (5, 2, 2, 2, 2)), (1080, 1920, (5, 3, 2, 2, 2)), (180, 320, (5, 2, 2))],
)
def test_published_strides(height, width, strides):
    assert choose_strides(height, width) == strides
    assert FrameLayout(height, width, strides).grid == (9, 16)


@pytest.mark.parametrize("aspect", [(1, 1), (9, 16), (16, 9), (1, 300)])
def test_every_size_pads_to_the_next_multiple(aspect):
    for side in range(1, 301):
        height, width = (max(1, min(300, round(side * part / min(aspect)))) for part in aspect)
        layout = FrameLayout(height, width, choose_strides(height, width))
        factor = math.prod(layout.strides)
        for size, cells in zip((height, width), layout.grid):
            assert size <= cells * factor < size + factor


@pytest.mark.parametrize("height, width", [(h, w) for h in range(33, 301, 38) for w in range(33, 301, 38)])
def test_padding_stays_small(height, width):
    """The grid is never far from the published 9x16 cells, nor is much of a frame thrown away."""
    layout = FrameLayout(height, width, choose_strides(height, width))
    rows, columns = layout.grid
    padded = rows * columns * math.prod(layout.strides) ** 2
    assert padded <= 1.35 * height * width
    assert 144 / 5 < rows * columns < 144 * 5


@pytest.mark.parametrize("height, width, strides", [(18, 32, (3, 2)), (17, 31, (3, 2)), (1, 1, (2, 2)), (7, 12, (5,))])
def test_pad_replicates_and_crop_undoes_it(height, width, strides):
    layout = FrameLayout(height, width, strides)
    factor = math.prod(strides)
    frames = torch.rand(2, 3, height, width)
    padded = layout.pad(frames)
    assert padded.shape == (2, 3, layout.grid[0] * factor, layout.grid[1] * factor)
    assert torch.equal(layout.crop(padded), frames)
    last_row, last_column = frames[..., -1:, :], frames[..., :, -1:]
    assert torch.equal(padded[..., height:, :width], last_row.expand(-1, -1, padded.shape[2] - height, -1))
    assert torch.equal(padded[..., :height, width:], last_column.expand(-1, -1, -1, padded.shape[3] - width))


def test_frames_that_fit_are_not_copied():
    frames = torch.rand(1, 3, 18, 32)
    assert FrameLayout(18, 32, (2,)).pad(frames) is frames


@pytest.mark.parametrize("lower", [8, 12])
def test_hnerv_widths(lower):
    """C_0 = f, C_{i+1} = max(round(C_i / 1.2), lower) (card section 2.5)."""
    for f in range(15, 400):
        expected, channels = [], f
        for _ in range(5):
            channels = max(round(channels / 1.2), lower)
            expected.append(channels)
        assert stage_widths(f, 5, 1 / 1.2, 1.2, "nearest", lower) == expected


@pytest.mark.parametrize("expansion", [1.0, 3.0])
def test_nerv_widths(expansion):
    """The first stage keeps (E-NeRV: triples) the width, later ones halve it (card sections 2.6, 2.7)."""
    for f in range(4, 400):
        expected = [int(f * expansion)]
        while len(expected) < 5:
            expected.append(max(expected[-1] // 2, 12))
        assert stage_widths(f, 5, expansion, 2.0, "floor", 12) == expected


@pytest.mark.parametrize(
    "count", [lambda w: w, lambda w: 3 * w * w + 17, lambda w: 1000 + w // 7, lambda w: 10 * max(w, 12)]
)
@pytest.mark.parametrize("budget", [1101.0, 1234.5, 9999.0])
def test_largest_width_is_maximal(count, budget):
    width = largest_width(count, budget)
    assert count(width) <= budget < count(width + 1)


def test_largest_width_takes_the_exact_fit():
    assert largest_width(lambda w: w * w, 25**2) == 25
    assert largest_width(lambda w: w * w, 25**2 - 1) == 24
    assert largest_width(lambda w: w * w, 16) == 4


def test_largest_width_builds_few_networks():
    asked = []
    largest_width(lambda w: asked.append(w) or w * w, 500**2)
    assert len(asked) < 20


def test_impossible_budget_says_how_to_mend_it():
    with pytest.raises(
        InputError, match=r"budget of 15 numbers is too small .* takes 16; raise --pipeline\.model\.target"
    ):
        largest_width(lambda w: w * w, 15)
    with pytest.raises(InputError, match=r"raise --pipeline\.model\.decoder-params"):
        largest_width(lambda w: w * w, 15, "--pipeline.model.decoder-params")
