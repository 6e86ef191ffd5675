"""The networks of NeRV, E-NeRV, HNeRV and their boosted forms: a frame index (and an embedding) to a whole frame."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Dict, Literal, Optional, Tuple, Type

import torch
from jaxtyping import Float, Int
from nerfstudio.configs.base_config import InstantiateConfig
from torch import Tensor, nn
from torch.nn import Parameter

from nerfstudio_ext.video.blocks import ActivationName, ModulationName, Sequential1x1, UpsampleBlock
from nerfstudio_ext.video.encoder import ConvNeXtEncoder
from nerfstudio_ext.video.sizing import FrameLayout, stage_widths
from nerfstudio_ext.video.stems import ContentStem, GridStem, StemName, TimeStem
from nerfstudio_ext.video.time_encoding import frame_times, positional_encoding


@dataclass
class BoostingNeRVFieldConfig(InstantiateConfig):
    """Network of one video; the defaults are HNeRV-Boost's."""

    _target: Type = field(default_factory=lambda: BoostingNeRVField)
    stem: StemName = "content"
    """Where decoding starts: time (NeRV), grid of time and space (E-NeRV) or content embedding (HNeRV)."""
    activation: ActivationName = "sin"
    """Activation of the decoder; the boosted methods use sin."""
    modulation: ModulationName = "tat"
    """How the frame's time enters the blocks: not at all, E-NeRV's instance modulation, or temporal-aware affine
    transforms."""
    time_convention: Literal["start", "end", "closed"] = "end"
    """Time of frame i of N: i/N, (i+1)/N or i/(N-1)."""
    frequency_base: float = 1.25
    """Ratio of neighbouring frequencies of the time code; 1.05 is smooth enough to interpolate."""
    num_frequencies: int = 80
    """Frequencies of the time code, half of its channels."""
    condition_hidden: int = 64
    """Hidden width of the condition branch."""
    condition_width: int = 32
    """Width of the condition that the modulation reads."""
    stem_hidden: int = 256
    """Hidden width of the time stem."""
    token_width: int = 128
    """Token width of the grid stem."""
    embedding_channels: int = 16
    """Channels of the content embedding."""
    encoder_width: int = 64
    """Channels of the content encoder, which is not part of the stored video."""
    expansion: float = 1 / 1.2
    """Width of the first stage over the width of the stem."""
    width_divisor: float = 1.2
    """Width of a stage over the width of the next."""
    width_rounding: Literal["nearest", "floor"] = "nearest"
    """How a divided width becomes an integer."""
    lower_width: int = 12
    """Smallest width that the division may lead to, from the second stage on."""
    kernel_first: int = 1
    """Kernel size of the first stage; grows by two with every stage."""
    kernel_last: int = 3
    """Largest kernel size."""
    late_stage_blocks: int = 2
    """Blocks in each of the last three stages (never the first); earlier stages have one."""
    factorised_first_stage: bool = False
    """Build the first stage of two thinner convolutions (E-NeRV)."""
    head_kernel: int = 3
    """Kernel size of the output convolution."""


class BoostingNeRVField(nn.Module):
    """Video decoder, with the encoder that the hybrid forms train alongside.

    Args:
        config: The architecture.
        layout: Frame size, strides and padding.
        num_frames: Length of the clip.
        width: Channels after the stem, the one knob of model size.
        with_encoder: False leaves out the encoder of the hybrid forms, which decoding does not need.
    """

    time_code: Tensor

    def __init__(
        self,
        config: BoostingNeRVFieldConfig,
        layout: FrameLayout,
        num_frames: int,
        width: int,
        with_encoder: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        self.layout = layout
        times = frame_times(num_frames, config.time_convention)
        self.register_buffer("time_code", positional_encoding(times, config.frequency_base, config.num_frequencies))

        code = 2 * config.num_frequencies
        condition = config.condition_width
        self.condition: Optional[nn.Module] = None
        if config.modulation != "none":
            self.condition = Sequential1x1((code, config.condition_hidden, condition), config.activation)

        self.encoder: Optional[nn.Module] = None
        if config.stem == "content":
            if with_encoder:
                self.encoder = ConvNeXtEncoder(layout.strides, config.encoder_width, config.embedding_channels)
            tat = condition if config.modulation == "tat" else None
            self.stem: nn.Module = ContentStem(config.embedding_channels, width, config.activation, tat)
        elif config.stem == "time":
            self.stem = TimeStem(code, config.stem_hidden, width, layout.grid, config.activation)
        else:
            self.stem = GridStem(code, config.frequency_base, config.token_width, width, layout.grid, config.activation)

        widths = stage_widths(
            width,
            len(layout.strides),
            config.expansion,
            config.width_divisor,
            config.width_rounding,
            config.lower_width,
        )
        self.blocks = nn.ModuleList()
        channels = width
        for stage, (stride, stage_width) in enumerate(zip(layout.strides, widths)):
            late = stage >= max(1, len(widths) - 3)
            for repeat in range(config.late_stage_blocks if late else 1):
                self.blocks.append(
                    UpsampleBlock(
                        channels,
                        stage_width,
                        stride=stride if repeat == 0 else 1,
                        kernel=min(config.kernel_first + 2 * stage, config.kernel_last),
                        activation=config.activation,
                        modulation=config.modulation,
                        condition=condition,
                        factorised=config.factorised_first_stage and stage == 0,
                    )
                )
                channels = stage_width
        self.head = nn.Conv2d(channels, 3, config.head_kernel, padding=config.head_kernel // 2)

    @property
    def embedding_shape(self) -> Optional[Tuple[int, int, int]]:
        """Channels, height and width of one frame's stored embedding; None where a frame is decoded from time alone."""
        return (self.config.embedding_channels, *self.layout.grid) if self.config.stem == "content" else None

    def num_decoder_parameters(self) -> int:
        """Numbers that a stored video needs besides its embeddings: everything trainable except the encoder."""
        return sum(p.numel() for p in self.decoder_parameters().values())

    def decoder_parameters(self) -> Dict[str, Parameter]:
        """What a stored video holds, by name in a fixed order: everything trainable except the encoder."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("encoder.")}

    def encode(
        self, frames: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames channels grid_height grid_width"]:
        """Content embeddings of frames in [0, 1] at the clip's own size; padding happens here.

        Raises:
            ValueError: The method has no encoder, or was built without it.
        """
        if self.encoder is None:
            raise ValueError(f"this network with the {self.config.stem} stem has no encoder: it only decodes")
        return self.encoder(self.layout.pad(frames))

    def decode(
        self,
        indices: Int[Tensor, "frames"],
        embeddings: Optional[Float[Tensor, "frames channels grid_height grid_width"]] = None,
        code: Optional[Float[Tensor, "frames code"]] = None,
    ) -> Float[Tensor, "frames 3 height width"]:
        """Frames in [0, 1] at the clip's own size (the padding is cropped away).

        Args:
            indices: 0-based frame numbers.
            embeddings: Content embeddings, for the content stem only.
            code: Time codes that take the place of the frames' own, for times between frames.
        """
        if code is None:
            code = self.time_code[indices]
        z = code if self.condition is None else self.condition(code)
        x = self.stem(embeddings, z) if self.config.stem == "content" else self.stem(code)
        for block in self.blocks:
            x = block(x, z)
        return 0.5 * torch.tanh(self.layout.crop(self.head(x))) + 0.5

    def time_code_between(self, position: Fraction, num_frames: int) -> Float[Tensor, "1 code"]:
        """Time code of a place between frames, counted in frames from 0."""
        config = self.config
        first, second = frame_times(num_frames, config.time_convention)[:2]
        time = first + position * (second - first)
        code = positional_encoding([time], config.frequency_base, config.num_frequencies)
        return code.to(self.time_code)

    def forward(
        self,
        indices: Int[Tensor, "frames"],
        embeddings: Optional[Float[Tensor, "frames channels grid_height grid_width"]] = None,
        code: Optional[Float[Tensor, "frames code"]] = None,
    ) -> Float[Tensor, "frames 3 height width"]:
        """As `decode`; `torch.func.functional_call` puts other weights in for one call."""
        return self.decode(indices, embeddings, code)
