"""Video files with a container, and raw yuv files without one, read through PyAV."""

import re
from pathlib import Path
from typing import Any, Iterator, Optional, Tuple

import numpy as np
from jaxtyping import UInt8

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video.source import DEFAULT_FPS, Source, warn

# Demuxers that accept any text and draw its letters.
_TEXT_FORMATS = ("tty",)


class VideoSource(Source):
    """A video file, read through PyAV.

    Frames come in display order and by index: a variable frame rate is neither filled up nor thinned out. Pixels are
    what PyAV's `rgb24` conversion gives; a rotation noted in the file (phones) is carried out.

    Args:
        path: The file.
        fps: Overrides the rate of the file.
        raw_size: Width and height when the file holds bare 8-bit 4:2:0 frames without a header.

    Raises:
        InputError: Nothing in the file can be decoded as video.
    """

    def __init__(self, path: Path, fps: Optional[float] = None, raw_size: Optional[Tuple[int, int]] = None):
        from av.video.reformatter import VideoReformatter

        self.path = path
        self._raw_size = raw_size
        # One converter for all frames; each frame's own would be set up anew every time.
        self._reformatter = VideoReformatter()
        num_frames, num_missing, file_fps = self._scan()
        super().__init__(
            name=path.stem,
            num_frames=num_frames,
            num_missing=num_missing,
            height=0,
            width=0,
            fps=fps or file_fps or DEFAULT_FPS,
            num_bytes=path.stat().st_size,
        )
        first = next(self._decode(), None)
        if first is None:
            raise InputError(f"No frame of {path} can be decoded: the file is damaged or cut short; get a fresh copy.")
        if _is_transparent(first):
            warn(f"{path} has transparent pixels: the transparency is dropped, the colours beneath it are used.")
        self.height, self.width = self._to_rgb(first).shape[:2]

    def read(self, first: int, last: Optional[int], step: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        for index, frame in enumerate(self._decode()):
            if last is not None and index > last:
                return
            if index < first or (index - first) % step:
                continue
            picture = self._to_rgb(frame)
            if picture.shape[:2] != (self.height, self.width):
                raise InputError(
                    f"{self.path} changes its picture size at frame {index}, from {self.width}x{self.height} to "
                    f"{picture.shape[1]}x{picture.shape[0]}: cut the part with one size out of it first."
                )
            yield picture

    def _open(self) -> Tuple[Any, Any]:
        """Open the file; returns PyAV's container and the video stream."""
        import av
        from av.error import FFmpegError

        options = {}
        if self._raw_size is not None:
            options = {"video_size": "{}x{}".format(*self._raw_size), "pixel_format": "yuv420p"}
        try:
            # With "file:" a colon or a percent sign in a name is nothing special.
            container = av.open(
                f"file:{self.path.resolve()}", format="rawvideo" if self._raw_size else None, options=options
            )
        except FFmpegError as error:
            raise self._unreadable(error.strerror) from error
        streams = [stream for stream in container.streams.video if stream.codec_context is not None]
        if not streams or container.format.name in _TEXT_FORMATS:
            container.close()
            raise self._unreadable("no video in it")
        return container, streams[0]

    def _unreadable(self, reason: Optional[str]) -> InputError:
        return InputError(
            f"{self.path} cannot be read as a video ({reason}): it is not one, or it was cut short and lost its index; "
            "give a whole video file, a folder of frames or a raw .yuv file."
        )

    def _scan(self) -> Tuple[int, int, Optional[float]]:
        """Walk over the compressed packets: number of frames, number missing at the end, average rate."""
        from av.error import FFmpegError

        container, stream = self._open()
        shown, hidden, times = 0, 0, []
        with container:
            try:
                for packet in container.demux(stream):
                    if packet.size == 0:
                        continue
                    # Packets before an edit list's start are decoded but never shown.
                    is_hidden = getattr(packet, "is_discard", False)
                    hidden += is_hidden
                    shown += not is_hidden
                    if packet.pts is not None and not is_hidden:
                        times.append(float(packet.pts * stream.time_base))
            except FFmpegError:
                pass  # what follows is lost; the count below tells
            fps = float(stream.average_rate) if stream.average_rate else None
            if len(times) > 1 and max(times) > min(times):
                measured = (len(times) - 1) / (max(times) - min(times))
                # Some headers only guess; then the time stamps decide.
                if fps is None or abs(measured / fps - 1) > 0.02:
                    fps = measured
            announced = stream.frames - hidden
            if self._raw_size is not None:
                announced = self.path.stat().st_size // _raw_frame_bytes(*self._raw_size)
                shown = min(shown, announced)
            elif stream.frames == 0 and fps and times:
                announced = round((_tagged_duration(stream) - min(times)) * fps)
                # Times are rounded and rates average: a small difference says nothing.
                if announced - shown <= max(1, 0.02 * shown):
                    announced = shown
        return shown, max(0, announced - shown), fps

    def _decode(self) -> Iterator[Any]:
        """Yield PyAV frames; pieces that fail are counted and passed over."""
        from av.error import FFmpegError

        self.num_damaged = 0
        container, stream = self._open()
        # Not frame threads: closing a decoder that works ahead waits, under the GIL, for threads that want the GIL.
        stream.thread_type = "SLICE"
        with container:
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets)
                except StopIteration:
                    return
                except FFmpegError:
                    self.num_damaged += 1
                    return
                if self._raw_size is not None and 0 < packet.size < _raw_frame_bytes(*self._raw_size):
                    continue
                try:
                    frames = packet.decode()
                except FFmpegError:
                    self.num_damaged += 1
                    continue
                yield from frames

    def _to_rgb(self, frame: Any) -> UInt8[np.ndarray, "height width 3"]:
        picture = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        quarter_turns = round(getattr(frame, "rotation", 0) / 90) % 4
        return np.rot90(picture, quarter_turns) if quarter_turns else picture


def open_raw(path: Path, fps: Optional[float], size: Optional[Tuple[int, int]]) -> VideoSource:
    """Open a raw `.yuv`; names such as `Beauty_1920x1080_120fps_420_8bit_YUV.yuv` tell size and rate."""
    name_size = re.search(r"(\d{1,5})x(\d{1,5})", path.stem)
    name_fps = re.search(r"(\d+(?:\.\d+)?)fps", path.stem, re.IGNORECASE)
    name_bits = re.search(r"(\d+)bit", path.stem, re.IGNORECASE)
    if (name_bits and int(name_bits.group(1)) != 8) or re.search(r"(?<!\d)4(22|44)(?!\d)", path.stem):
        raise InputError(f"{path} does not look like 8-bit 4:2:0, the only raw layout that is read: convert it first.")
    if size is None and name_size is None:
        raise InputError(f"The size of {path} is not in its name: give --yuv-size WIDTH HEIGHT.")
    size = size or (int(name_size.group(1)), int(name_size.group(2)))
    frame_bytes, num_bytes = _raw_frame_bytes(*size), path.stat().st_size
    if min(size) < 1 or num_bytes < frame_bytes:
        raise InputError(
            f"{path} has {num_bytes} bytes, but one frame of {size[0]}x{size[1]} needs {frame_bytes}: "
            "give the right --yuv-size WIDTH HEIGHT."
        )
    if num_bytes % frame_bytes:
        warn(
            f"{path} is no whole number of {size[0]}x{size[1]} frames: the last {num_bytes % frame_bytes} bytes are "
            "ignored; if the picture looks wrong, give the right --yuv-size WIDTH HEIGHT."
        )
    return VideoSource(path, fps or (float(name_fps.group(1)) if name_fps else DEFAULT_FPS), raw_size=size)


def _raw_frame_bytes(width: int, height: int) -> int:
    """Bytes of one 8-bit 4:2:0 frame; chroma planes of odd sizes round up."""
    return width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)


def _is_transparent(frame: Any) -> bool:
    has_alpha = any(component.is_alpha for component in frame.format.components)
    return has_alpha and frame.to_ndarray(format="rgba")[..., 3].min() < 255


def _tagged_duration(stream: Any) -> float:
    """Seconds of a Matroska or WebM stream by its tag, which survives when the end of the file is lost; 0 if absent."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    return 3600 * int(match.group(1)) + 60 * int(match.group(2)) + float(match.group(3)) if match else 0.0
