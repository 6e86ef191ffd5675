"""What classical codecs make of the same frames: rate and PSNR of x264 and x265 through PyAV, and BD-rate."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, List, Sequence, Tuple

import numpy as np
from jaxtyping import UInt8

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.metrics import psnr_8bit
from nerfstudio_ext.engine.packages import require_packages

DECODERS = {"libx264": "h264", "libx265": "hevc"}
CRFS = (18, 24, 30, 36, 42)
"""Qualities at which the anchors are measured."""


@dataclass(frozen=True)
class RatePoint:
    """One encoding of a clip."""

    name: str
    """Which codec, preset and colour format, or which file."""
    bpp: float
    """Bits per pixel of one frame's pixels."""
    psnr: float
    """PSNR in dB of 8-bit RGB frames, averaged over frames."""


def classical_point(
    frames: Sequence[UInt8[np.ndarray, "height width 3"]],
    codec: str,
    crf: int,
    preset: str,
    pixel_format: str,
    fps: float = 25.0,
) -> RatePoint:
    """Encode RGB frames, decode them again, and measure both ends.

    Rate is the sum of the packets, without a container. RGB goes to YUV and back by BT.601, and 4:2:0 alone costs
    quality.

    Args:
        frames: RGB frames of one size; an odd side is padded by repeating its last line, and cut again.
        codec: Encoder, libx264 or libx265.
        crf: Constant quality, lower is better.
        preset: Effort, in the encoder's words.
        pixel_format: Colour at half resolution (yuv420p) or in full (yuv444p).
        fps: Frames per second.

    Raises:
        InputError: This build of PyAV cannot encode so.
    """
    import av
    from av.error import FFmpegError

    height, width = frames[0].shape[:2]
    try:
        encoder: Any = av.CodecContext.create(codec, "w")
        encoder.width, encoder.height, encoder.pix_fmt = width + width % 2, height + height % 2, pixel_format
        encoder.time_base = 1 / Fraction(fps).limit_denominator(1001)
        encoder.thread_count = 1
        quiet = {"x265-params": "log-level=error:pools=1:frame-threads=1:info=0"} if codec == "libx265" else {}
        encoder.options = {"crf": str(crf), "preset": preset, **quiet}
        packets = []
        for index, frame in enumerate(frames):
            even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            picture = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(format=pixel_format)
            picture.pts = index
            packets += encoder.encode(picture)
        packets += encoder.encode(None)
        decoder: Any = av.CodecContext.create(DECODERS[codec], "r")
        decoder.thread_count = 1
        decoded = [picture for packet in packets for picture in decoder.decode(packet)] + decoder.decode(None)
    except (FFmpegError, ValueError) as error:
        raise InputError(f"{codec} with preset {preset} and {pixel_format} does not work here ({error}).") from error
    values = []
    for picture, frame in zip(decoded, frames, strict=True):
        shown = picture.to_ndarray(format="rgb24")[:height, :width]
        values.append(psnr_8bit(shown, frame))
    bits = 8 * sum(packet.size for packet in packets)
    name = f"{codec.removeprefix('lib')} {preset} {pixel_format[3:6]}"
    return RatePoint(name, bits / (len(frames) * height * width), float(np.mean(values)))


def bd_rate(anchor: Sequence[RatePoint], test: Sequence[RatePoint]) -> float:
    """Average difference in rate at equal PSNR, in percent of the anchor's; negative: the test needs less.

    Args:
        anchor: At least four points.
        test: At least four points, whose range of PSNR overlaps the anchor's.

    Raises:
        InputError: There are too few points, the ranges do not overlap, or the package bjontegaard is missing.
    """
    require_packages("BD-rate", "video", "bjontegaard")
    import bjontegaard

    curves: List[Tuple[List[float], List[float]]] = []
    for points in (anchor, test):
        if len(points) < 4:
            raise InputError(f"BD-rate needs at least 4 points a curve, and there are {len(points)}.")
        ordered = sorted(points, key=lambda point: point.bpp)
        curves.append(([point.bpp for point in ordered], [point.psnr for point in ordered]))
    lowest, highest = max(min(psnr) for _, psnr in curves), min(max(psnr) for _, psnr in curves)
    if lowest >= highest:
        raise InputError("BD-rate needs curves whose PSNR ranges overlap, and these do not.")
    settings: Any = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    rate: Any = bjontegaard.bd_rate(*curves[0], *curves[1], **settings)
    return float(rate)
