"""x264 and x265 as anchors: better quality costs more bits, frames keep their order, BD-rate against known curves."""

import numpy as np
import pytest

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.anchors import RatePoint, bd_rate, classical_point
from nerfstudio_ext.procedural.clip import draw_frame


@pytest.fixture(scope="module")
def frames():
    return [draw_frame(4 * k, 47, 65) for k in range(6)]


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
def test_rate_and_quality_fall_together(frames, codec, pixel_format):
    points = [classical_point(frames, codec, crf, "medium", pixel_format) for crf in (10, 24, 38)]
    assert points[0].bpp > points[1].bpp > points[2].bpp > 0
    assert points[0].psnr > points[1].psnr > points[2].psnr > 15
    assert points[0].name == f"{codec[3:]} medium {pixel_format[3:6]}"


def test_full_colour_is_better_at_the_top(frames):
    half, full = (classical_point(frames, "libx264", 4, "medium", name) for name in ("yuv420p", "yuv444p"))
    assert full.psnr > half.psnr + 1


def test_an_unknown_preset_is_told(frames):
    with pytest.raises(InputError, match="hasty"):
        classical_point(frames, "libx264", 20, "hasty", "yuv420p")


@pytest.mark.extra("bjontegaard")
def test_bd_rate():
    psnr = np.linspace(28, 40, 5)
    anchor = [RatePoint("a", 0.01 * 2**k, p) for k, p in enumerate(psnr)]
    half = [RatePoint("b", 0.005 * 2**k, p) for k, p in enumerate(psnr)]
    assert bd_rate(anchor, half) == pytest.approx(-50, abs=0.5) and bd_rate(anchor, anchor) == pytest.approx(
        0, abs=1e-6
    )
    with pytest.raises(InputError, match="at least 4"):
        bd_rate(anchor, half[:3])
    with pytest.raises(InputError, match="overlap"):
        bd_rate(anchor, [RatePoint("c", 1.0 + k, 50.0 + k) for k in range(4)])
