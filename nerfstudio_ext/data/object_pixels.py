"""A pixel sampler that looks at the object more often than its size in the pictures asks for."""

from typing import Any, Dict, Optional

import torch
from jaxtyping import Int
from nerfstudio.data.pixel_samplers import PixelSampler, PixelSamplerConfig
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError


class ObjectPixelSampler(PixelSampler):
    """nerfstudio's sampler with a share of its pixels drawn from the foreground masks.

    Args:
        config: The host's settings, for the other pixels.
        share: Share of each batch that is drawn from pixels of the object, above 0 and at most 1.

    Raises:
        InputError: Another share; when sampling, pictures without masks or of different sizes.
    """

    def __init__(self, config: PixelSamplerConfig, share: float, **kwargs: Any) -> None:
        if not 0 < share <= 1:
            raise InputError(f"--pipeline.datamanager.object-share {share} must be from 0 to 1.")
        super().__init__(config, **kwargs)
        if self.config.is_equirectangular or self.config.fisheye_crop_radius is not None:
            raise InputError(
                f"--pipeline.datamanager.object-share {share} cannot be drawn from panoramas or cropped fisheyes: "
                "set it to 0."
            )
        self.share = share
        self._masks: Optional[Tensor] = None
        self._pixels: Int[Tensor, "pixels 3"] = torch.empty(0, 3, dtype=torch.long)

    def sample(self, image_batch: Dict) -> Dict:
        masks = image_batch.get("fg_mask")
        if not isinstance(masks, Tensor):
            raise InputError(
                f"--pipeline.datamanager.object-share {self.share} needs foreground masks, and pictures of one size: "
                "without these set it to 0."
            )
        if masks is not self._masks:  # the same pictures stay in memory for the whole training
            self._masks, self._pixels = masks, torch.nonzero(masks[..., 0] > 0.5)
        return super().sample(image_batch)

    def sample_method(self, batch_size: int, *args: Any, **kwargs: Any) -> Int[Tensor, "batch_size 3"]:
        count = round(self.share * batch_size) if len(self._pixels) else 0
        anywhere = super().sample_method(batch_size - count, *args, **kwargs)
        chosen = self._pixels[torch.randint(len(self._pixels), (count,))] if count else self._pixels[:0]
        return torch.cat([chosen.to(anywhere), anywhere])
