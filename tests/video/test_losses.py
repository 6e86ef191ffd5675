"""Reconstruction losses against their plain definitions."""

import pytest
import torch

from nerfstudio_ext.video.losses import frequency_l1, reconstruction_loss
from tests.reference.plain_nerv import plain_frequency_l1, plain_loss

NAMES = ("high-frequency", "l2", "l1-ssim")
# One per window of MS-SSIM (11, 7, 5, plain SSIM) and one smaller than SSIM's own window; odd and even sides.
SIZES = [(161, 176), (97, 130), (65, 81), (36, 64), (9, 14)]


def frames(height, width, count=2, dtype=torch.float32):
    """Smooth pictures and a noisy copy."""
    target = torch.nn.functional.interpolate(torch.rand(count, 3, 5, 7, dtype=dtype), (height, width), mode="bilinear")
    return (target + 0.05 * torch.randn_like(target)).clamp(0, 1).requires_grad_(), target


@pytest.mark.parametrize("height", [1, 2, 7, 8])
@pytest.mark.parametrize("width", [1, 2, 3, 8, 9])
def test_half_a_spectrum_is_enough(height, width):
    prediction, target = torch.rand(2, 2, 3, height, width)
    torch.testing.assert_close(frequency_l1(prediction, target), plain_frequency_l1(prediction, target))


def test_frequency_l1_of_one_wave():
    """A cosine of amplitude a over n pixels stands as a n / 2 in two of n coefficients; the mean counts real and
    imaginary parts."""
    height, width, amplitude = 6, 8, 0.3
    wave = amplitude * torch.cos(2 * torch.pi * 3 * torch.arange(width) / width).expand(1, 3, height, width)
    pixels = height * width
    expected = 2 * (amplitude * pixels / 2) / (2 * pixels)
    assert float(frequency_l1(wave, torch.zeros_like(wave))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("height, width", SIZES)
def test_equals_the_plain_loss(name, height, width):
    prediction, target = frames(height, width)
    ours, theirs = reconstruction_loss(prediction, target, name), plain_loss(name, prediction, target)
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(ours, prediction)
    (expected,) = torch.autograd.grad(theirs, prediction)
    # A frequency whose difference vanishes may take either sign; single pixels therefore differ a little.
    assert (gradient - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("height, width, ratio", [(180, 320, 4.0), (90, 160, 2.0), (360, 640, 8.0)])
def test_frequency_term_grows_with_the_frame(height, width, ratio):
    """Against the weighted L1 term, noise counts 4 times at 180x320 (card section 4)."""
    noise = 0.1 * torch.randn(1, 3, height, width)
    frequency, l1 = frequency_l1(noise, torch.zeros_like(noise)), noise.abs().mean()
    assert float(frequency / (60 * 0.7 * l1)) == pytest.approx(ratio, rel=0.03)


def test_frequency_reference_gives_the_weight_of_720p():
    prediction, target = frames(90, 160)
    base = reconstruction_loss(prediction, target, "high-frequency")
    scaled = reconstruction_loss(prediction, target, "high-frequency", frequency_reference=True)
    torch.testing.assert_close(scaled - base, 7 * frequency_l1(prediction, target), rtol=1e-4, atol=1e-4)


def test_frequency_reference_touches_the_frequency_term_only():
    prediction, target = frames(36, 64)
    for name in ("l2", "l1-ssim"):
        assert torch.equal(
            reconstruction_loss(prediction, target, name),
            reconstruction_loss(prediction, target, name, frequency_reference=True),
        )


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_full(name):
    prediction, target = (x.detach().bfloat16() for x in frames(36, 64))
    loss = reconstruction_loss(prediction, target, name)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain_loss(name, prediction.float(), target.float()), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_perfect_frames_cost_nothing(name):
    _, target = frames(65, 80)
    assert abs(float(reconstruction_loss(target, target, name))) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    """Losses are float32 by design, so analytic gradients are held against central differences of the plain loss in
    float64."""
    torch.manual_seed(3)
    prediction, target = frames(7, 8, count=1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(reconstruction_loss(prediction, target, name), prediction)
    direction = torch.randn_like(prediction)
    with torch.no_grad():
        ahead, behind = (plain_loss(name, prediction + s * 1e-5 * direction, target) for s in (1, -1))
    assert float((gradient * direction).sum()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-3)
