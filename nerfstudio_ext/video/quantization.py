"""Stored numbers as integers: learned scales for a decoder's tensors and a clip's embeddings, and what they cost.

Consistent entropy minimisation (Boosting-NeRV section 3.5): codes are weights over a learned scale, rounded straight
through; their cost is that of Gaussians fitted to them on the fly, the very distributions that the coder uses later.
Deviations: scales are learned as logarithms (the same step then means the same ratio for every tensor), and the
embeddings' scale starts from all frames instead of the first.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_ext.video.rate import SMALLEST_STD, gaussian_bits, noisy, round_straight_through, segment_moments

START_LEVELS = 255
"""Steps into which the range of a tensor is divided before its scale is learned."""


@dataclass
class CompressionConfig:
    """Second training stage, which makes the stored numbers cheap to code."""

    bits: float = 4.0
    """Bits per stored number (decoder and embeddings) above which the rate counts as a loss."""
    rate_loss_mult: float = 0.05
    """Weight of the rate, in bits of the whole video per pixel of one frame."""
    start_run: Optional[Path] = None
    """Run whose last weights the stage started from."""


class Quantized(NamedTuple):
    """A decoder as it is stored."""

    weights: Dict[str, Tensor]
    """Dequantised tensors by name."""
    codes: Float[Tensor, "numbers"]
    """Integer codes as floats, all tensors end to end; ``weights = codes * scale``."""
    bits: Float[Tensor, ""]
    """What the codes cost."""


class DecoderQuantizer(nn.Module):
    """Learned scale per tensor of a decoder; all tensors are handled as one flat vector.

    Args:
        tensors: Tensors to store, by name; only shapes and memory formats are kept.
    """

    segments: Tensor
    counts: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._names = list(tensors)
        self._shapes = [tensor.shape for tensor in tensors.values()]
        self._sizes = [tensor.numel() for tensor in tensors.values()]
        counts = torch.tensor(self._sizes)
        self.register_buffer("segments", torch.arange(len(counts)).repeat_interleave(counts), persistent=False)
        self.register_buffer("counts", counts.float(), persistent=False)
        self.log_scale = nn.Parameter(torch.zeros(len(counts)))

    @torch.no_grad()
    def start(self, tensors: Mapping[str, Tensor]) -> None:
        """Set every scale to a fixed share of its tensor's range."""
        for index, name in enumerate(self._names):
            self.log_scale[index] = math.log(starting_scale(tensors[name]))

    def scales(self) -> Float[Tensor, "tensors"]:
        """Step between neighbouring codes of each tensor, in the tensor's own units."""
        return self.log_scale.exp()

    def forward(self, tensors: Mapping[str, Tensor]) -> Quantized:
        """Quantise all tensors; in training the bits are those of codes with noise, otherwise of the codes."""
        flat = torch.cat([tensors[name].reshape(-1) for name in self._names])
        scale = self.scales().index_select(0, self.segments)
        codes = flat / scale
        rounded = round_straight_through(codes)
        coded = noisy(codes) if self.training else rounded
        mean, std = segment_moments(codes if self.training else rounded, self.segments, self.counts)
        bits = gaussian_bits(coded, mean.index_select(0, self.segments), std.index_select(0, self.segments)).sum()
        return Quantized(self._split(rounded * scale), rounded.detach(), bits)

    def _split(self, flat: Float[Tensor, "numbers"]) -> Dict[str, Tensor]:
        parts = (part.view(shape) for part, shape in zip(flat.split(self._sizes), self._shapes))
        return {
            name: part.contiguous(memory_format=torch.channels_last) if part.dim() == 4 else part
            for name, part in zip(self._names, parts)
        }


class EmbeddingQuantizer(nn.Module):
    """One learned scale and offset for the embeddings of all frames; every frame has its own Gaussian."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.offset = nn.Parameter(torch.zeros(1))

    @torch.no_grad()
    def start(self, embeddings: Float[Tensor, "frames channels grid_height grid_width"]) -> None:
        """Set the scale to a fixed share of the range over all frames, and the offset to its lower end."""
        self.log_scale.fill_(math.log(starting_scale(embeddings)))
        self.offset.fill_(float(embeddings.min()))

    def forward(
        self, embeddings: Float[Tensor, "frames channels grid_height grid_width"]
    ) -> Tuple[Tensor, Tensor, Float[Tensor, "frames"]]:
        """Dequantised embeddings, their codes (as floats, without gradient) and the bits of each frame."""
        scale = self.log_scale.exp()
        codes = (embeddings - self.offset) / scale
        rounded = round_straight_through(codes)
        fitted = (codes if self.training else rounded).flatten(1)
        variance, mean = torch.var_mean(fitted, dim=1, correction=0, keepdim=True)
        std = variance.clamp_min(SMALLEST_STD**2).sqrt()
        coded = noisy(codes) if self.training else rounded
        bits = gaussian_bits(coded.flatten(1), mean, std).sum(dim=1)
        return rounded * scale + self.offset, rounded.detach(), bits


class VideoQuantizer(nn.Module):
    """Both quantisers of a stored video.

    Args:
        tensors: The decoder's tensors by name.
        has_embeddings: Whether frames have embeddings.
    """

    def __init__(self, tensors: Mapping[str, Tensor], has_embeddings: bool) -> None:
        super().__init__()
        self.decoder = DecoderQuantizer(tensors)
        self.embeddings = EmbeddingQuantizer() if has_embeddings else None

    def start(self, tensors: Mapping[str, Tensor], embeddings: Optional[Tensor]) -> None:
        """Set the scales from the numbers that are to be stored."""
        self.decoder.start(tensors)
        if self.embeddings is not None:
            assert embeddings is not None
            self.embeddings.start(embeddings)

    def quantize_embeddings(self, embeddings: Tensor) -> Tuple[Tensor, Tensor, Float[Tensor, "frames"]]:
        """Embeddings of some frames: values, codes, and the bits of each frame; noisy bits in training."""
        assert self.embeddings is not None
        return self.embeddings(embeddings)

    def stored_decoder(self, tensors: Mapping[str, Tensor]) -> Quantized:
        """The decoder as it is stored: rounded, without noise, whatever mode this module is in."""
        return _in_eval(self.decoder, tensors)

    def stored_embeddings(self, embeddings: Tensor) -> Tuple[Tensor, Tensor, Float[Tensor, "frames"]]:
        """Embeddings as they are stored: values, codes, and the bits of each frame."""
        assert self.embeddings is not None
        return _in_eval(self.embeddings, embeddings)


@torch.no_grad()
def _in_eval(module: nn.Module, numbers: Any) -> Any:
    was_training = module.training
    try:
        return module.eval()(numbers)
    finally:
        module.train(was_training)


def starting_scale(tensor: Tensor) -> float:
    """Range of a tensor over START_LEVELS; for a constant one, twice its size takes the place of the range."""
    low, high = float(tensor.min()), float(tensor.max())
    return max(high - low if high > low else 2 * abs(high), 1e-6) / START_LEVELS
