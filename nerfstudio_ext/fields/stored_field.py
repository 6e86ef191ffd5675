"""The header of a .bnrv file and the network that it describes, within limits that hold before memory is taken."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Dict, List, Literal, Optional, get_args, get_origin, get_type_hints

import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.fields.boosting_nerv_field import BoostingNeRVField, BoostingNeRVFieldConfig
from nerfstudio_ext.video.frames import ClipInfo
from nerfstudio_ext.video.sizing import FrameLayout, stage_widths

MAX_SIDE, MAX_PIXELS = 2**14, 2**25
"""Largest side of a frame, and most pixels in one (8K has 33 million)."""
MAX_FRAMES = 2**15
"""Longest clip."""
MAX_TIME_CODES = 2**21
"""Most entries of the table of time codes (frames times frequencies)."""
MAX_WIDTH = 2**12
"""Largest width, of whatever kind."""
MAX_GRID_CELLS, MAX_TOKENS = 2**16, 2**12
"""Largest coarse grid, in cells, and where each cell is a token that attends to all others."""
MAX_ACTIVATIONS = 2**29
"""Most numbers in one layer's output: 2 GiB."""
MAX_NUMBERS = 2**27
"""Largest network with its embeddings: 1 GiB, codes and weights."""
NUMBERS_PER_BYTE, FREE_NUMBERS = 64, 2**16
"""A file must be this long: one byte per so many numbers beyond the free ones."""
LEFT_OUT = ("_target", "encoder_width")
"""What decoding does not need of an architecture."""
TASKS = ("representation", "interpolation")
"""Every frame has its embedding, or the even ones have, and an odd one takes the mean of its neighbours'."""


def describe(
    clip: ClipInfo, field: BoostingNeRVField, width: int, method: str, task: str = "representation"
) -> Dict[str, Any]:
    """Header of a clip's file.

    Args:
        clip: Facts about the clip.
        field: Its network.
        width: The network's width.
        method: Preset that it was trained with, for people to read.
        task: What it was trained for, one of TASKS.
    """
    architecture = {f.name: getattr(field.config, f.name) for f in fields(field.config) if f.name not in LEFT_OUT}
    return {
        "architecture": architecture,
        "clip": asdict(clip),
        "method": method,
        "strides": list(field.layout.strides),
        "task": task,
        "width": width,
    }


@dataclass(frozen=True)
class Description:
    """What a checked header says; `sketch` has the network's shapes and takes no memory."""

    clip: ClipInfo
    """Facts about the clip."""
    config: BoostingNeRVFieldConfig
    """Architecture."""
    layout: FrameLayout
    """Frame size and strides."""
    width: int
    """Width of the network."""
    sketch: BoostingNeRVField
    """The network on the meta device, with the time codes of a single frame."""
    method: str
    """Preset that it was trained with, for people to read."""
    task: str
    """One of TASKS."""

    @property
    def num_embedded(self) -> int:
        """Frames that have an embedding in the file."""
        return num_embedded(self.sketch, self.clip.num_frames, self.task)

    def build(self) -> BoostingNeRVField:
        """The network with random weights and without its encoder; takes time and memory, so call it last."""
        field = BoostingNeRVField(self.config, self.layout, self.clip.num_frames, self.width, with_encoder=False)
        return field.requires_grad_(False).eval()


def read_description(header: Dict[str, Any], num_bytes: int) -> Description:
    """The network that a header describes.

    Args:
        header: The file's header.
        num_bytes: Size of the file.

    Raises:
        InputError: The header lacks something, has the wrong kind of something, or goes beyond a limit.
    """
    clip = _clip(header.get("clip"))
    config = _architecture(header.get("architecture"))
    task = header.get("task")
    if task not in TASKS:
        raise InputError("its header names a task that this package does not know")
    if task == "interpolation" and clip.num_frames % 2 == 0:
        raise InputError("its last frame has no later neighbour to be interpolated from")
    width = _integer(header, "width", 1, MAX_WIDTH)
    strides = header.get("strides")
    if not isinstance(strides, list) or not 1 <= len(strides) <= 12:
        raise InputError("its header has no list of 1 to 12 strides")
    layout = FrameLayout(clip.height, clip.width, tuple(_integer({"stride": s}, "stride", 1, 16) for s in strides))
    _check_work(config, layout, clip.num_frames, width)
    try:
        with torch.device("meta"):
            sketch = BoostingNeRVField(config, layout, 1, width, with_encoder=False)
    except (ValueError, RuntimeError, ArithmeticError, TypeError, AssertionError):
        raise InputError("its header describes no network") from None
    if any(tensor.numel() == 0 for tensor in sketch.parameters()):
        raise InputError("its header describes a network with a layer of no width")
    numbers = sketch.num_decoder_parameters() + num_embedded(sketch, clip.num_frames, task) * math.prod(
        sketch.embedding_shape or ()
    )
    allowed = min(MAX_NUMBERS, FREE_NUMBERS + NUMBERS_PER_BYTE * num_bytes)
    if numbers > allowed:
        raise InputError(f"its network would take {numbers} numbers, more than the {allowed} that its size allows")
    return Description(clip, config, layout, width, sketch, _text(header, "method"), task)


def num_embedded(field: BoostingNeRVField, num_frames: int, task: str) -> int:
    """Frames of a clip that have an embedding of their own; 0 where the method has none."""
    if field.embedding_shape is None:
        return 0
    return (num_frames + 1) // 2 if task == "interpolation" else num_frames


def _clip(facts: Any) -> ClipInfo:
    if not isinstance(facts, dict):
        raise InputError("its header has no facts about the clip")
    height, width = (_integer(facts, side, 1, MAX_SIDE) for side in ("height", "width"))
    if height * width > MAX_PIXELS:
        raise InputError(f"its frames of {width}x{height} have more than {MAX_PIXELS} pixels")
    return ClipInfo(
        num_frames=_integer(facts, "num_frames", 1, MAX_FRAMES),
        height=height,
        width=width,
        fps=_number(facts, "fps", 1e-3, 1e4),
        name=_text(facts, "name"),
        source_bytes=_integer(facts, "source_bytes", 0, 2**62),
    )


def _architecture(values: Any) -> BoostingNeRVFieldConfig:
    hints = get_type_hints(BoostingNeRVFieldConfig)
    names = {f.name for f in fields(BoostingNeRVFieldConfig)} - set(LEFT_OUT)
    if not isinstance(values, dict) or set(values) != names:
        raise InputError("its header describes no architecture of this version")
    for name in names:
        kind, value = hints[name], values[name]
        if get_origin(kind) is Literal:
            fits = isinstance(value, str) and value in get_args(kind)
        elif kind is bool:
            fits = isinstance(value, bool)
        elif kind is int:
            fits = _integer(values, name, 1, MAX_WIDTH) > 0
        else:
            fits = _number(values, name, 1e-3, 1e3) > 0
        if not fits:
            raise InputError(f"'{name}' in its header is not of the right kind")
    config = BoostingNeRVFieldConfig(**values)
    kernels = (config.kernel_first, config.kernel_last, config.head_kernel)
    if any(k % 2 == 0 or k > 31 for k in kernels) or config.late_stage_blocks > 8:
        raise InputError("its header describes kernels or blocks out of range")
    if not 1 <= config.frequency_base <= 2:
        raise InputError("its header has a frequency base outside 1 to 2")
    return config


def _check_work(config: BoostingNeRVFieldConfig, layout: FrameLayout, num_frames: int, width: int) -> None:
    """Refuse sizes that would cost too much time or memory to build or decode, by arithmetic alone."""
    rows, columns = layout.grid
    if rows * columns > (MAX_TOKENS if config.stem == "grid" else MAX_GRID_CELLS):
        raise InputError(f"its coarse grid of {rows}x{columns} has too many cells")
    if num_frames * config.num_frequencies > MAX_TIME_CODES or config.num_frequencies > 256:
        raise InputError("its time codes are longer than the limit")
    widths: List[int] = stage_widths(
        width,
        len(layout.strides),
        config.expansion,
        config.width_divisor,
        config.width_rounding,
        config.lower_width,
    )
    cells = rows * columns
    for stage, (stride, channels) in enumerate(zip(layout.strides, widths)):
        cells *= stride**2
        if not 1 <= channels <= 2 * MAX_WIDTH or channels * cells > MAX_ACTIVATIONS:
            raise InputError(f"stage {stage} of its network is wider than the limits allow")


def _text(values: Dict[str, Any], name: str) -> str:
    """A short text that cannot steer a terminal."""
    value = values.get(name)
    if not isinstance(value, str) or len(value) > 255:
        raise InputError(f"'{name}' in its header is not a text of at most 255 characters")
    return "".join(c if c.isprintable() else "?" for c in value)


def _integer(values: Dict[str, Any], name: str, least: int, most: int) -> int:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"'{name}' in its header is not a whole number from {least} to {most}")
    return value


def _number(values: Dict[str, Any], name: str, least: float, most: float) -> float:
    value: Optional[Any] = values.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"'{name}' in its header is not a number from {least:g} to {most:g}")
    return float(value)
