"""Writing frames: a video file that plays everywhere, and a contact sheet of pictures."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Iterable, Optional, Sequence

import numpy as np
from jaxtyping import UInt8

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.audio import add_audio

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
"""Containers that `write_video` writes, by the end of the file name."""
# Tells players which matrix made the colours; without it they guess from the picture size.
_COLOUR_TAGS = "colorprim=bt709:transfer=bt709:colormatrix=bt709:range=tv"


def write_video(
    frames: Iterable[UInt8[np.ndarray, "height width 3"]],
    path: Path,
    fps: float,
    crf: int = 17,
    preset: str = "medium",
    sound: Optional[Path] = None,
) -> int:
    """Encode frames as they come (H.264, 4:2:0, BT.709); the file appears under its name only when it is whole.

    Args:
        frames: RGB frames of one size; an odd height or width is padded to even by repeating the last row or column.
        path: Ends in .mp4, .mov or .mkv; missing folders are made, an old file is replaced.
        fps: Frames per second.
        crf: Quality of x264, lower is better; 17 looks like the original.
        preset: Effort of x264.
        sound: File whose sound the video gets, up to the video's end.

    Returns:
        The number of frames written.

    Raises:
        InputError: There are no frames, their sizes differ, the file cannot be written, or the sound does not fit
            into it; an old file then is as it was.
    """
    path = Path(path)
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise InputError(f"{path} must end in one of {' '.join(VIDEO_SUFFIXES)} to be written as a video.")
    if not 0 < fps < float("inf"):
        raise InputError(f"{path} cannot play at {fps} frames per second: give a positive rate.")

    import av
    from av.error import FFmpegError

    draft = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(f"file:{draft}", "w", options={"movflags": "+faststart"}) as container:
            options = {"crf": str(crf), "preset": preset, "x264-params": _COLOUR_TAGS}
            # Rates such as 23.976 are fractions over 1001.
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
            stream.pix_fmt = "yuv420p"
            count = _encode(frames, container, stream)
        if count == 0:
            raise InputError(f"There are no frames to write to {path}.")
        if sound is not None:
            add_audio(draft, sound)
        os.replace(draft, path)
    except (OSError, FFmpegError) as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): choose another place or make room.") from error
    finally:
        _remove(draft)
    return count


def contact_sheet(
    frames: Sequence[UInt8[np.ndarray, "height width 3"]],
    path: Path,
    num_tiles: int = 12,
    columns: int = 4,
    tile_width: int = 320,
    labels: Optional[Sequence[str]] = None,
) -> None:
    """Write evenly spaced frames, first and last included, as one labelled grid picture (PNG).

    Args:
        frames: RGB frames of one size; only those shown are fetched.
        path: The picture; missing folders are made, an old file is replaced.
        num_tiles: Frames shown, at most; shorter clips show every frame.
        columns: Tiles per row.
        tile_width: Wider frames are shrunk to this many pixels.
        labels: One per frame of the clip; the default counts frames from 0.

    Raises:
        InputError: There are no frames.
    """
    from PIL import Image, ImageDraw

    path = Path(path)
    if len(frames) == 0:
        raise InputError(f"There are no frames for the contact sheet {path}.")
    shown = np.unique(np.linspace(0, len(frames) - 1, max(1, num_tiles)).round().astype(int)).tolist()
    height, width = frames[0].shape[:2]
    tile_width = min(width, tile_width)
    tile_height = max(1, round(height * tile_width / width))
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)

    gap, strip = 4, 16
    size = (columns * (tile_width + gap) + gap, rows * (tile_height + strip + gap) + gap)
    sheet = Image.new("RGB", size, (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    for place, k in enumerate(shown):
        left = gap + (place % columns) * (tile_width + gap)
        top = gap + (place // columns) * (tile_height + strip + gap)
        tile = Image.fromarray(np.ascontiguousarray(frames[k]))
        sheet.paste(tile.resize((tile_width, tile_height), Image.Resampling.LANCZOS), (left, top))
        label = f"frame {k}" if labels is None else str(labels[k])
        draw.text((left + 2, top + tile_height + 2), label, fill=(230, 230, 230))

    draft = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(draft, format="PNG")
        os.replace(draft, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): choose another place or make room.") from error
    finally:
        _remove(draft)


def _remove(draft: Path) -> None:
    """Delete an unfinished file, if there is one."""
    if draft.is_file():
        draft.unlink()


def _encode(frames: Iterable[UInt8[np.ndarray, "height width 3"]], container, stream) -> int:
    """Push the frames through an open encoder; returns how many there were."""
    import av
    from av.video.reformatter import Colorspace, VideoReformatter

    reformatter = VideoReformatter()
    shape, count = None, 0
    for frame in frames:
        if shape is None:
            shape = frame.shape
            stream.height, stream.width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        if frame.dtype != np.uint8 or frame.shape != shape or frame.shape[2:] != (3,):
            raise InputError(
                f"Frame {count} is {frame.dtype} {list(frame.shape)}, but all frames of this video must be uint8 "
                f"{[*shape[:2], 3]} (height, width, RGB)."
            )
        even = np.pad(frame, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        picture = reformatter.reformat(
            picture, format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation="BICUBIC"
        )
        picture.pts = count
        container.mux(stream.encode(picture))
        count += 1
    if count:
        container.mux(stream.encode())
    return count
