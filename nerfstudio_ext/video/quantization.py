"""Stored numbers as integers: learned scales for a decoder's tensors and a clip's embeddings, and what they cost.

Consistent entropy minimisation (Boosting-NeRV section 3.5): codes are weights over a learned scale, rounded straight
through; their cost is that of Gaussians fitted to them on the fly, the very distributions that the coder uses later.
Deviations: scales are learned as logarithms (the same step then means the same ratio for every tensor), and the
embeddings' scale starts from all frames instead of the first.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nerfstudio_ext.video.bitstream.coder import ideal_bits
from nerfstudio_ext.video.bitstream.prediction import WHOLE, Prediction, differences
from nerfstudio_ext.video.rate import SMALLEST_STD, gaussian_bits, noisy, round_straight_through, segment_moments

Embeddings = Float[Tensor, "frames channels grid_height grid_width"]

START_LEVELS = 255
"""Steps into which the range of a tensor is divided before its scale is learned."""


@dataclass
class CompressionConfig:
    """Second training stage, which makes the stored numbers cheap to code."""

    bits: float = 4.0
    """Bits per stored number (decoder and embeddings), as training counts them, above which the rate is a loss."""
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
            self.log_scale[index] = math.log(even_step(tensors[name]))

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
    """One learned scale and offset for the embeddings of all frames."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.offset = nn.Parameter(torch.zeros(1))

    @torch.no_grad()
    def start(self, embeddings: Embeddings) -> None:
        """Set the scale to a fixed share of the range over all frames, and the offset to its lower end."""
        self.log_scale.fill_(math.log(even_step(embeddings)))
        self.offset.fill_(float(embeddings.min()))

    def _codes(self, embeddings: Embeddings) -> Embeddings:
        return (embeddings - self.offset) / self.log_scale.exp()

    def forward(self, embeddings: Embeddings) -> Tuple[Embeddings, Embeddings]:
        """Dequantised embeddings, and their codes (as floats, without gradient)."""
        rounded = round_straight_through(self._codes(embeddings))
        return rounded * self.log_scale.exp() + self.offset, rounded.detach()

    def expected_bits(self, embeddings: Embeddings) -> Float[Tensor, "frames"]:
        """Bits of frames in training, with noise in place of rounding, each under the Gaussian that fits it (the
        paper's). Files take fewer, since they store differences from the frame before."""
        codes = self._codes(embeddings).flatten(1)
        variance, mean = torch.var_mean(codes, dim=1, correction=0, keepdim=True)
        return gaussian_bits(noisy(codes), mean, variance.clamp_min(SMALLEST_STD**2).sqrt()).sum(dim=1)


@torch.no_grad()
def expectation(codes: Embeddings) -> Prediction:
    """What a frame lets expect of the next: the mean of each channel, and the share of the deviation from it that
    leaves the least squared differences."""
    centre = codes.mean(dim=(0, 2, 3)).round()
    moved = codes - centre[:, None, None]
    both, square = ((moved[:-1] * other).sum(dim=(0, 2, 3)) for other in (moved[1:], moved[:-1]))
    share = torch.round(WHOLE * both / square.clamp_min(1.0)).clamp(0, WHOLE)
    limit = 2**15 - 1
    return Prediction(centre.clamp(-limit, limit).cpu().numpy().astype(np.int16), share.cpu().numpy().astype(np.uint8))


class StoredNumbers(NamedTuple):
    """What a file stores."""

    scales: Float[np.ndarray, "tensors"]
    """Step between codes of each tensor, float32."""
    tensors: List[Int[np.ndarray, "numbers"]]
    """Codes of each tensor."""
    embedding: Tuple[float, float]
    """Scale and offset of the embeddings."""
    embeddings: Optional[Embeddings]
    """Codes of the embeddings, as floats; none where frames have none."""

    def segments(self) -> Tuple[List[Int[np.ndarray, "numbers"]], Prediction]:
        """What is coded: the tensors, then each frame's difference from what the frame before lets expect."""
        if self.embeddings is None:
            return self.tensors, Prediction(np.zeros(0, np.int16), np.zeros(0, np.uint8))
        prediction = expectation(self.embeddings)
        moved = differences(integers(self.embeddings), prediction)
        return [*self.tensors, *moved.reshape(len(moved), -1)], prediction

    def bits(self) -> float:
        """What the codes cost in a file."""
        return ideal_bits(self.segments()[0])


def integers(codes: Float[Tensor, "*shape"]) -> Int[np.ndarray, "*shape"]:
    """Codes as integers (int64)."""
    return codes.detach().cpu().double().numpy().round().astype(np.int64)


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

    def stored_numbers(self, decoder: Quantized, embeddings: Optional[Embeddings]) -> StoredNumbers:
        """Everything that a file stores.

        Args:
            decoder: The decoder as it is stored.
            embeddings: Embeddings that a file holds.
        """
        tensors = [integers(codes) for codes in decoder.codes.split(self.decoder.counts.long().tolist())]
        scales = self.decoder.scales().detach().cpu().numpy()
        if embeddings is None:
            return StoredNumbers(scales, tensors, (1.0, 0.0), None)
        assert self.embeddings is not None
        embedding = (float(self.embeddings.log_scale.exp()), float(self.embeddings.offset))
        return StoredNumbers(scales, tensors, embedding, self.stored_embeddings(embeddings)[1])

    @torch.no_grad()
    def stored_decoder(self, tensors: Mapping[str, Tensor]) -> Quantized:
        """The decoder as it is stored: rounded, without noise, whatever mode this module is in."""
        was_training = self.decoder.training
        try:
            return self.decoder.eval()(tensors)
        finally:
            self.decoder.train(was_training)

    @torch.no_grad()
    def stored_embeddings(self, embeddings: Embeddings) -> Tuple[Embeddings, Embeddings]:
        """Embeddings as they are stored: values, and codes."""
        assert self.embeddings is not None
        return self.embeddings(embeddings)


def even_step(tensor: Tensor, levels: int = START_LEVELS) -> float:
    """Range of a tensor over a number of levels; for a constant one, twice its size takes the place of the range."""
    low, high = float(tensor.min()), float(tensor.max())
    return max(high - low if high > low else 2 * abs(high), 1e-6) / levels
