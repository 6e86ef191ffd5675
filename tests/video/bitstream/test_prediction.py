"""Differences from frame to frame: codes come back exactly, and what stays the same costs nothing."""

import numpy as np
import pytest
import torch

from nerfstudio_ext.video.bitstream.prediction import WHOLE, Prediction, differences, restore
from nerfstudio_ext.video.quantization import expectation


@pytest.mark.parametrize("frames", [1, 2, 9])
@pytest.mark.parametrize("spread", [3, 2**14])
def test_codes_come_back(frames, spread):
    rng = np.random.default_rng(frames)
    codes = rng.integers(-spread, spread, (frames, 5, 3, 4))
    prediction = Prediction(rng.integers(-50, 50, 5).astype(np.int16), np.array([0, 1, 7, 15, 16], np.uint8))
    assert np.array_equal(restore(differences(codes, prediction), prediction), codes)


def test_halves_are_rounded_up():
    codes = np.array([3, 0, -3, 0]).reshape(4, 1, 1, 1)
    prediction = Prediction(np.zeros(1, np.int16), np.full(1, WHOLE // 2, np.uint8))
    assert differences(codes, prediction).ravel().tolist() == [3, -2, -3, 1]


def test_what_stays_the_same_is_expected():
    picture = torch.randint(-40, 40, (1, 4, 6, 6)).float()
    still, other = picture.expand(10, -1, -1, -1), torch.randint(-40, 40, (10, 4, 6, 6)).float()
    assert (expectation(still).share == WHOLE).all()
    assert (expectation(other).share <= 3).all()
    assert not differences(still.numpy().astype(int), expectation(still))[1:].any()


def test_shares_are_those_of_a_decaying_channel():
    codes = [1000 * torch.randn(1, 2, 30, 30)]
    for _ in range(20):
        codes.append(0.5 * codes[-1] + 870 * torch.randn(1, 2, 30, 30))
    expected = expectation(torch.cat(codes).round() + 7000)
    assert (abs(expected.share.astype(int) - 8) <= 1).all() and (abs(expected.centre - 7000) <= 100).all()


def test_a_single_frame_expects_nothing():
    assert (expectation(torch.randn(1, 3, 2, 2)).share == 0).all()
