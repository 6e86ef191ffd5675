"""Distance of pictures in the features of VGG-19 (Johnson et al. 2016), where its weights are on this machine."""

from pathlib import Path
from typing import Optional

import torch
from jaxtyping import Float
from torch import Tensor, nn

VGG_WEIGHTS = "vgg19-dcbb9e9d.pth"
TAPS = {1: 1 / 16, 6: 1 / 8, 11: 1 / 4, 20: 1.0}
"""Layers after which features are compared (relu1_1 to relu4_1), and their weights."""


def vgg_weights_path() -> Path:
    """Where torch.hub keeps, or would keep, torchvision's ImageNet weights of VGG-19."""
    return Path(torch.hub.get_dir()) / "checkpoints" / VGG_WEIGHTS


class VggDistance:
    """Weighted mean absolute difference of features; outside the module tree, built on first use, never fetched."""

    def __init__(self) -> None:
        self._layers: Optional[nn.Sequential] = None

    @property
    def available(self) -> bool:
        """Whether the weights lie on this machine."""
        return vgg_weights_path().is_file()

    def __call__(
        self, pred: Float[Tensor, "batch 3 height width"], target: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, ""]:
        """Distance of pictures in [0, 1], with a gradient.

        Raises:
            FileNotFoundError: The weights are missing; ask `available` first.
        """
        if self._layers is None:
            self._layers = self._load()
        layers = self._layers.to(pred.device)
        mean, std = (pred.new_tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        pair = (torch.cat([pred, target.detach()]) - mean) / std
        total = pred.new_zeros(())
        for number, layer in enumerate(layers):
            pair = layer(pair)
            if number in TAPS:
                one, other = pair.chunk(2)
                total = total + TAPS[number] * (one - other).abs().mean()
        return total

    def _load(self) -> nn.Sequential:
        from torchvision.models import vgg19

        layers = vgg19(weights=None).features[: max(TAPS) + 1]
        state = torch.load(vgg_weights_path(), map_location="cpu", weights_only=True)
        layers.load_state_dict({key[9:]: state[key] for key in (f"features.{key}" for key in layers.state_dict())})
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        return layers.eval().requires_grad_(False)
