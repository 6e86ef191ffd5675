"""SSIM and MS-SSIM as losses: pytorch-msssim's numbers and gradients."""

import pytest
import pytorch_msssim
import torch

from nerfstudio_ext.video.ssim import ms_ssim, ssim

# Shorter side and the window that goes with it.
MULTI_SCALE = [((161, 190), 11), ((163, 161), 11), ((160, 160), 7), ((97, 131), 7), ((96, 101), 5), ((65, 70), 5)]


def pair(size, noise=0.1, count=2):
    target = torch.nn.functional.interpolate(torch.rand(count, 3, 9, 11), size, mode="bicubic").clamp(0, 1)
    return (target + noise * torch.randn_like(target)).clamp(0, 1).requires_grad_(), target


def compare(ours, theirs, prediction):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert float(theirs.min()) > 0.05 and float(theirs.max()) < 0.99
    (gradient,) = torch.autograd.grad(ours.sum(), prediction)
    (expected,) = torch.autograd.grad(theirs.sum(), prediction)
    assert (gradient - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("size, window", MULTI_SCALE)
def test_ms_ssim_equals_pytorch_msssim(size, window):
    prediction, target = pair(size)
    expected = pytorch_msssim.ms_ssim(prediction, target, data_range=1, size_average=False, win_size=window)
    compare(ms_ssim(prediction, target), expected, prediction)


@pytest.mark.parametrize("size, window", [((64, 90), 11), ((33, 40), 11), ((11, 12), 11), ((10, 30), 9), ((3, 4), 3)])
def test_ssim_equals_pytorch_msssim(size, window):
    prediction, target = pair(size)
    expected = pytorch_msssim.ssim(prediction, target, data_range=1, size_average=False, win_size=window)
    compare(ssim(prediction, target), expected, prediction)


def test_ms_ssim_of_small_frames_is_ssim():
    prediction, target = pair((64, 80))
    assert torch.equal(ms_ssim(prediction, target), ssim(prediction, target))


@pytest.mark.parametrize("size", [(1, 1), (2, 9)])
def test_frames_smaller_than_three_pixels(size):
    prediction, target = pair(size)
    values = ms_ssim(prediction, target)
    values.sum().backward()
    assert values.shape == (2,) and torch.isfinite(values).all() and torch.isfinite(prediction.grad).all()


@pytest.mark.parametrize("size", [(64, 64), (90, 90), (170, 170)])
def test_inverted_frames_have_a_finite_gradient(size):
    """Contrast terms below zero are cut off; a power of zero must not poison the step."""
    _, target = pair(size)
    prediction = (1 - target).requires_grad_()
    ms_ssim(prediction, target).sum().backward()
    assert torch.isfinite(prediction.grad).all()


def test_equal_frames_are_fully_similar():
    _, target = pair((100, 110))
    torch.testing.assert_close(ms_ssim(target, target), torch.ones(2))
    torch.testing.assert_close(ssim(target, target), torch.ones(2))


def test_frames_are_judged_apart():
    prediction, target = pair((70, 80), count=3)
    together = ms_ssim(prediction, target)
    apart = [ms_ssim(prediction[k : k + 1], target[k : k + 1])[0] for k in range(3)]
    torch.testing.assert_close(together, torch.stack(apart))


def test_channels_last_frames_give_the_same_numbers():
    prediction, target = pair((70, 80))
    inner = (x.detach().contiguous(memory_format=torch.channels_last) for x in (prediction, target))
    torch.testing.assert_close(ms_ssim(*inner), ms_ssim(prediction, target))


def test_float64_frames_are_computed_in_float64():
    prediction, target = pair((16, 20))
    values = ssim(prediction.double(), target.double())
    assert values.dtype == torch.float64
    torch.testing.assert_close(values.float(), ssim(prediction, target), rtol=1e-4, atol=1e-5)
