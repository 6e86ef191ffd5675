"""The rate model against hand-made sums, and the gradient that rounding passes on."""

import math

import pytest
import torch

from nerfstudio_ext.video.rate import SMALLEST_STD, gaussian_bits, noisy, round_straight_through, segment_moments


@pytest.mark.parametrize("code, mean, std", [(0.0, 0.0, 1.0), (3.0, 0.4, 2.5), (-7.0, 1.0, 3.0)])
def test_bits_of_one_code(code, mean, std):
    def below(x):
        return 0.5 * (1 + math.erf((x - mean) / (std * math.sqrt(2))))

    expected = -math.log2(below(code + 0.5) - below(code - 0.5) + 1e-5)
    numbers = (torch.tensor([x], dtype=torch.float64) for x in (code, mean, std))
    assert float(gaussian_bits(*numbers)) == pytest.approx(expected, rel=1e-6)


def test_bits_are_the_entropy_of_what_the_gaussian_describes():
    codes = torch.round(torch.randn(200_000, generator=torch.Generator().manual_seed(1)) * 4)
    bits = gaussian_bits(codes, codes.mean(), codes.std()).mean()
    _, counts = codes.unique(return_counts=True)
    shares = counts / counts.sum()
    assert float(bits) == pytest.approx(float(-(shares * shares.log2()).sum()), abs=0.01)


def test_far_codes_cost_a_finite_number_of_bits_and_certain_ones_none():
    bits = gaussian_bits(torch.tensor([1e4, 0.0]), torch.zeros(2), torch.tensor([1.0, SMALLEST_STD]))
    assert torch.isfinite(bits).all() and float(bits[0]) == pytest.approx(-math.log2(1e-5)) and float(bits[1]) == 0


def test_rounding_passes_the_gradient_through():
    codes = torch.tensor([0.2, 1.7, -2.4], requires_grad=True)
    rounded = round_straight_through(codes)
    (rounded * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert rounded.tolist() == [0, 2, -2] and codes.grad.tolist() == [1, 2, 3]


def test_noise_stays_within_a_bin():
    codes = torch.zeros(1000)
    shifts = noisy(codes)
    assert float(shifts.min()) >= -0.5 and float(shifts.max()) <= 0.5 and float(shifts.std()) > 0.2


def test_moments_of_segments():
    parts = [torch.randn(5) * 3 + 1, torch.randn(40), torch.tensor([2.0])]
    segments = torch.cat([torch.full((len(part),), k) for k, part in enumerate(parts)])
    counts = torch.tensor([len(part) for part in parts], dtype=torch.float32)
    mean, std = segment_moments(torch.cat(parts), segments, counts)
    torch.testing.assert_close(mean, torch.stack([part.mean() for part in parts]))
    torch.testing.assert_close(std[:2], torch.stack([part.std(correction=0) for part in parts[:2]]))
    assert float(std[2]) == pytest.approx(SMALLEST_STD)
