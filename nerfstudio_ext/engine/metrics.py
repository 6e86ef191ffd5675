"""Image metrics that work offline: PSNR, SSIM and MS-SSIM always, LPIPS when its weights are on this machine."""

from pathlib import Path
from typing import Optional

import numpy as np
import pytorch_msssim
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"


def psnr(
    pred: Float[Tensor, "batch 3 height width"], target: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch"]:
    """Peak signal-to-noise ratio of each image in dB, 10 log10(1 / (mse + 1e-9)); at most 90.

    Args:
        pred: Images in [0, 1].
        target: Images in [0, 1].
    """
    mse = (pred.float() - target.float()).square().flatten(1).mean(dim=1)
    return -10.0 * torch.log10(mse + 1e-9)


def psnr_8bit(pred: UInt8[np.ndarray, "height width 3"], target: UInt8[np.ndarray, "height width 3"]) -> float:
    """PSNR in dB of one 8-bit picture; at most 90."""
    return float(-10 * np.log10(np.square(pred.astype(float) - target).mean() / 255**2 + 1e-9))


def psnr_where(
    pred: Float[Tensor, "batch 3 height width"],
    target: Float[Tensor, "batch 3 height width"],
    where: Float[Tensor, "batch 1 height width"],
) -> Float[Tensor, "batch"]:
    """PSNR over the pixels of each image where the mask is 1; at most 90, and 90 where there are none.

    Args:
        pred: Images in [0, 1].
        target: Images in [0, 1].
        where: 1 for the pixels that count, 0 for the others.
    """
    error = ((pred.float() - target.float()).square() * where).flatten(1).sum(dim=1)
    mse = error / (3 * where.flatten(1).sum(dim=1)).clamp_min(1)
    return -10.0 * torch.log10(mse + 1e-9)


def ssim(
    pred: Float[Tensor, "batch 3 height width"], target: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch"]:
    """Structural similarity of each image; window 11, smaller only for images smaller than that.

    Args:
        pred: Images in [0, 1].
        target: Images in [0, 1].
    """
    shorter = min(pred.shape[-2:])
    window = min(11, shorter - 1 + shorter % 2)  # the largest odd window that fits
    return pytorch_msssim.ssim(pred.float(), target.float(), data_range=1.0, size_average=False, win_size=window)


def ssim_zju(
    pred: Float[Tensor, "batch 3 height width"], target: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch"]:
    """Structural similarity as papers on ZJU-MoCap quote it: that of old scikit-image for floating-point pictures.

    Uniform windows of 7 pixels (smaller only for smaller images), sample covariance, and a range of 2 (from -1 to 1)
    where pictures are in [0, 1], which makes it higher than `ssim`.

    Args:
        pred: Images in [0, 1].
        target: Images in [0, 1].
    """
    shorter = min(pred.shape[-2:])
    window = min(7, shorter - 1 + shorter % 2)
    x, y = pred.double(), target.double()
    mean_x, mean_y, xx, yy, xy = (F.avg_pool2d(v, window, 1) for v in (x, y, x * x, y * y, x * y))
    unbiased = window**2 / max(window**2 - 1, 1)
    var_x, var_y = unbiased * (xx - mean_x**2), unbiased * (yy - mean_y**2)
    covariance = unbiased * (xy - mean_x * mean_y)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return (above / below).flatten(1).mean(1)


def ms_ssim(
    pred: Float[Tensor, "batch 3 height width"], target: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch"]:
    """Multi-scale structural similarity of each image (5 scales, differentiable).

    The coarsest of five scales must still hold a window, so the window is 11 for a shorter side above 160 pixels, 7
    down to 97, 5 down to 65; smaller images get plain SSIM.

    Args:
        pred: Images in [0, 1].
        target: Images in [0, 1].
    """
    window = ms_ssim_window(min(pred.shape[-2:]))
    if window is None:
        return ssim(pred, target)
    return pytorch_msssim.ms_ssim(pred.float(), target.float(), data_range=1.0, size_average=False, win_size=window)


def ms_ssim_window(shorter_side: int) -> Optional[int]:
    """Window of MS-SSIM for images whose shorter side has this many pixels; None: too small for five scales."""
    for window in (11, 7, 5):
        if shorter_side > (window - 1) * 16:
            return window
    return None


def lpips_weights_path() -> Path:
    """Where torch.hub keeps, or would keep, the AlexNet weights that LPIPS needs."""
    return Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS


class Lpips:
    """Perceptual distance (LPIPS, AlexNet), held outside the module tree and built on first use.

    A plain object, so that its network is neither trained nor written into checkpoints. It never downloads: without
    the weights file `available` is False and calling raises.
    """

    def __init__(self) -> None:
        self._network = None

    @property
    def available(self) -> bool:
        """Whether the weights lie on this machine."""
        return lpips_weights_path().is_file()

    @torch.no_grad()
    def __call__(
        self, pred: Float[Tensor, "batch 3 height width"], target: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, ""]:
        """Mean distance of the images.

        Args:
            pred: Images in [0, 1].
            target: Images in [0, 1].

        Raises:
            FileNotFoundError: The weights are missing; ask `available` first.
        """
        if self._network is None:
            if not self.available:
                raise FileNotFoundError(f"LPIPS needs {lpips_weights_path()}; `ns-ext doctor` tells how to get it.")
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            self._network = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
        self._network.to(pred.device).reset()
        return self._network(pred.float().clamp(0, 1), target.float().clamp(0, 1))
