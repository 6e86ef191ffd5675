"""Image metrics: hand-checked numbers, every size, gradients, and no network."""

import copy

import numpy as np
import pytest
import torch

from nerfstudio_ext.engine.metrics import (
    Lpips,
    lpips_weights_path,
    ms_ssim,
    ms_ssim_window,
    psnr,
    psnr_8bit,
    ssim,
    ssim_zju,
)


def test_psnr_per_image():
    target = torch.zeros(2, 3, 4, 4)
    pred = torch.stack([torch.full((3, 4, 4), 0.1), torch.zeros(3, 4, 4)])
    assert psnr(pred, target).tolist() == pytest.approx([20.0, 90.0], abs=1e-4)


def test_psnr_of_8_bits():
    target = np.full((4, 5, 3), 100, np.uint8)
    assert psnr_8bit(target, target) == pytest.approx(90)
    assert psnr_8bit(target - 51, target) == psnr_8bit(target + 51, target) == pytest.approx(20 * np.log10(5), abs=1e-6)


@pytest.mark.parametrize(
    ("shorter", "window"), [(161, 11), (160, 7), (97, 7), (96, 5), (65, 5), (64, None), (16, None), (2, None)]
)
def test_ms_ssim_works_at_every_size(shorter, window):
    assert ms_ssim_window(shorter) == window
    image = torch.rand(2, 3, shorter, shorter + 9, generator=torch.Generator().manual_seed(0))
    assert ms_ssim(image, image).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    worse = ms_ssim((image + 0.1).clamp(0, 1), image)
    assert worse.shape == (2,) and torch.all(worse < 0.9999)


@pytest.mark.parametrize("size", [3, 8, 64, 180])
def test_ssim_falls_with_noise(size):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, size, size, generator=generator)
    noise = torch.randn(image.shape, generator=generator)
    values = [float(ssim(image + strength * noise, image)) for strength in (0.0, 0.05, 0.2)]
    assert values[0] == pytest.approx(1.0, abs=1e-5) and values[0] > values[1] > values[2]


def test_half_precision_input_is_measured_in_full():
    image = torch.rand(1, 3, 70, 70)
    for metric in (psnr, ssim, ms_ssim):
        assert metric(image.bfloat16(), image.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("size", [64, 90, 120, 170])
def test_ms_ssim_gradient_is_finite_even_for_an_inverted_image(size):
    target = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    pred = (1 - target).requires_grad_()
    ms_ssim(pred, target).sum().backward()
    assert torch.isfinite(pred.grad).all()


class TestLpips:
    def test_absent_weights_never_download(self, monkeypatch, tmp_path):
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        lpips = Lpips()
        assert not lpips.available
        with pytest.raises(FileNotFoundError, match="alexnet-owt"):
            lpips(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64))
        assert list(tmp_path.iterdir()) == []

    def test_measures_with_weights_and_stays_out_of_the_module_tree(self, monkeypatch, tmp_path):
        """Weights of the right shapes suffice: identical images are at distance 0, others are not."""
        from torchvision.models import alexnet

        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        lpips_weights_path().parent.mkdir()
        with torch.device("meta"):
            shapes = {name: value.shape for name, value in alexnet(weights=None).state_dict().items()}
        # One random number per output channel, repeated without being stored: the file stays small.
        weights = {name: torch.randn(shape[0], *[1] * (len(shape) - 1)).expand(shape) for name, shape in shapes.items()}
        torch.save(weights, lpips_weights_path())
        assert lpips_weights_path().stat().st_size < 1e6
        holder = torch.nn.Module()
        holder.lpips = Lpips()
        image = torch.rand(1, 3, 64, 64)
        assert holder.lpips.available
        assert float(holder.lpips(image, image)) == pytest.approx(0.0, abs=1e-6)
        assert float(holder.lpips(image, 1 - image)) > 0
        assert holder.state_dict() == {} and list(holder.modules()) == [holder]
        copy.deepcopy(holder)


@pytest.mark.parametrize("size", [(40, 33), (7, 9)])
def test_ssim_of_papers_on_zju_is_scikit_images_with_a_range_of_two(size):
    from skimage.metrics import structural_similarity

    torch.manual_seed(0)
    one = torch.rand(2, 3, *size)
    other = (one + 0.2 * torch.randn_like(one)).clamp(0, 1)
    for found, a, b in zip(ssim_zju(one, other), one.double().numpy(), other.double().numpy()):
        assert float(found) == pytest.approx(structural_similarity(a, b, channel_axis=0, data_range=2), abs=1e-9)
    assert ssim_zju(one[..., :3, :3], one[..., :3, :3]).tolist() == pytest.approx([1.0, 1.0])
