"""Rates of written videos: which there are, and where their pictures lie in the clip."""

import math

import pytest

from nerfstudio_ext.cli.frame_rate import check_rate, times_at
from nerfstudio_ext.engine.errors import InputError


@pytest.mark.parametrize("fps", [0.0, -25.0, 1e-9, 1e9, math.inf, math.nan])
def test_rates_that_are_none(fps):
    with pytest.raises(InputError, match=r"--fps .* must be from 0\.01 to 1000"):
        check_rate(fps)


def test_pictures_end_with_the_clip():
    for fps in (None, 0.01, 23.976, 1000.0):
        check_rate(fps)
    assert times_at(4, 25.0, 50.0) == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert (
        times_at(4, 25.0, 25.0) == [0, 1, 2, 3] and times_at(4, 25.0, 12.5) == [0, 2] and times_at(1, 25.0, 9.0) == [0]
    )
    assert len(times_at(101, 24000 / 1001, 48000 / 1001)) == 201
