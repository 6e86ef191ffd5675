"""Reconstruction losses of the NeRV family (Boosting-NeRV section 3.4 and the baselines' own); computed in float32."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_ext.video.ssim import ms_ssim, ssim

LossName = Literal["high-frequency", "l2", "l1-ssim"]

REFERENCE_PIXELS = 720 * 1280
"""Frame size at which the published weight of the frequency loss was set."""


def frequency_l1(
    prediction: Float[Tensor, "frames 3 height width"], target: Float[Tensor, "frames 3 height width"]
) -> Float[Tensor, ""]:
    """Mean absolute difference of the real and imaginary parts of the unnormalised 2-D spectra (Boosting-NeRV eq. 9).

    The spectra of real frames are symmetric and the transform is linear, so half a spectrum of the difference suffices:
    its inner columns stand for two.
    """
    spectrum = torch.view_as_real(torch.fft.rfft2((prediction - target).float()))
    columns = spectrum.abs().sum(dim=(0, 1, 2, 4))
    width = target.shape[-1]
    total = 2 * columns.sum() - columns[0] - (columns[-1] if width % 2 == 0 else 0)
    return total / (2 * target.numel())


def reconstruction_loss(
    prediction: Float[Tensor, "frames 3 height width"],
    target: Float[Tensor, "frames 3 height width"],
    name: LossName,
    frequency_reference: bool = False,
) -> Float[Tensor, ""]:
    """The loss that a method trains with.

    Args:
        prediction: Frames in [0, 1].
        target: Frames in [0, 1].
        name: ``high-frequency`` 60 (0.7 L1 + 0.3 (1 - MS-SSIM)) + frequency_l1 (boosted methods), ``l2`` (HNeRV) or
            ``l1-ssim`` 0.7 L1 + 0.3 (1 - SSIM) (NeRV, E-NeRV).
        frequency_reference: Rescale the frequency term, which grows with the square root of the frame's area, to its
            weight at 720x1280.
    """
    with torch.autocast(prediction.device.type, enabled=False):  # it would take the filters back to half precision
        prediction, target = prediction.float(), target.float()
        if name == "l2":
            return torch.mean((prediction - target) ** 2)
        l1 = torch.mean(torch.abs(prediction - target))
        if name == "l1-ssim":
            return 0.7 * l1 + 0.3 * (1 - ssim(prediction, target).mean())
        frequency = frequency_l1(prediction, target)
        if frequency_reference:
            frequency = frequency * (REFERENCE_PIXELS / (target.shape[-2] * target.shape[-1])) ** 0.5
        return 60 * (0.7 * l1 + 0.3 * (1 - ms_ssim(prediction, target).mean())) + frequency
