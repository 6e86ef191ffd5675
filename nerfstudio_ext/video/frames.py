"""A clip's frames as one uint8 array, in memory or mapped from disk, shared by everything in the process."""

import os
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from jaxtyping import Float, UInt8
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import track
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.clip import draw_frame
from nerfstudio_ext.video.frame_cache import Allocate, Frames, frames_on_disk
from nerfstudio_ext.video.reader import open_source
from nerfstudio_ext.video.resize import crop_window, resize_frame, target_size
from nerfstudio_ext.video.source import DEFAULT_FPS, Source, warn

# Clips up to this share of the free memory stay on a CUDA device once they were used there.
_DEVICE_SHARE = 0.25
# Shorter clips are read without a progress bar.
_LONG_CLIP = 200
# Resizing may change the aspect by this share without a word.
_SAME_SHAPE = 0.03


@dataclass(frozen=True)
class ClipInfo:
    """The few facts that viewing and rendering need when the source is gone."""

    num_frames: int
    """Frames in the clip."""
    height: int
    """Height in pixels."""
    width: int
    """Width in pixels."""
    fps: float
    """Frames per second at which the clip plays at its natural speed."""
    name: str
    """Short name of the source."""
    source_bytes: int
    """Size of the source file or files; 0 for the procedural clip."""


@dataclass(frozen=True)
class ClipOptions:
    """Everything that decides which pixels are taken from a source."""

    source: Optional[Path]
    """Video file, folder of frames, picture or raw yuv file; None: the procedural clip."""
    first_frame: int = 0
    """First frame used."""
    last_frame: Optional[int] = None
    """Last frame used (inclusive); None: to the end."""
    frame_step: int = 1
    """Use every n-th frame."""
    crop: Optional[Tuple[int, int, int, int]] = None
    """x, y, width, height of the part used, in source pixels."""
    size: Optional[Tuple[int, int]] = None
    """Height and width to resize to, after the crop."""
    max_side: Optional[int] = None
    """Shrink, keeping the aspect, until the longer side is at most this."""
    fps: Optional[float] = None
    """Frame rate of the source; None: the file's own, or 25 where there is none."""
    yuv_size: Optional[Tuple[int, int]] = None
    """Width and height of a raw yuv file whose name does not tell."""
    memory_budget_gb: float = 4.5
    """Clips above this many gigabytes (1e9 bytes, decoded) are mapped from a file on disk."""
    procedural_frames: int = 48
    """Frames of the procedural clip."""
    procedural_size: Tuple[int, int] = (96, 160)
    """Height and width of the procedural clip."""


class FrameStore:
    """The frames of one clip.

    Copying gives the same object: datasets are deep-copied by nerfstudio, a clip of gigabytes must not be.

    Args:
        info: Facts about the clip.
        options: What the frames were taken from.
        frames: The pixels; None when the source is gone and only the facts are known.
    """

    def __init__(
        self,
        info: ClipInfo,
        options: ClipOptions,
        frames: Optional[Frames] = None,
    ):
        self.info = info
        self.options = options
        self._frames = frames
        self._frames_on_device: Dict[torch.device, Tensor] = {}

    @property
    def available(self) -> bool:
        """Whether pixels can be had, not only facts."""
        return self._frames is not None

    def __len__(self) -> int:
        return self.info.num_frames

    def __getitem__(self, k: int) -> UInt8[np.ndarray, "height width 3"]:
        """Frame k, a view that must not be written to.

        Raises:
            IndexError: There is no such frame.
            InputError: The source is gone.
        """
        if not 0 <= k < len(self):
            raise IndexError(f"Frame {k} is not one of the clip's frames 0 to {len(self) - 1}.")
        return self._pixels()[k]

    def shortened(self, info: ClipInfo) -> "FrameStore":
        """The first frames of this clip, as many as the given facts say."""
        return FrameStore(info, self.options, None if self._frames is None else self._frames[: info.num_frames])

    def __deepcopy__(self, memo: Dict[int, Any]) -> "FrameStore":
        return self

    def batch(
        self, indices: Union[Sequence[int], Tensor], device: Union[torch.device, str]
    ) -> Float[Tensor, "frames 3 height width"]:
        """Gather frames on a device, in [0, 1], laid out channels-last in memory.

        Args:
            indices: Frame numbers; a CUDA tensor is used as it is, without a check that would stall the device.
            device: Where the result lives. Bytes travel, not floats; on CUDA a clip of up to a quarter of the free
                memory stays after its first use.
        """
        frames, device = self._pixels(), torch.device(device)
        if device.type == "cuda" and self._upload(frames, device):
            if not (isinstance(indices, Tensor) and indices.is_cuda):
                indices = torch.as_tensor(self._checked(indices), device=device)
            picked = self._frames_on_device[_with_index(device)][indices.reshape(-1)]
        else:
            picked = torch.from_numpy(frames[self._checked(indices)]).to(device)
        return picked.permute(0, 3, 1, 2).to(torch.float32).div_(torch.full((), 255.0, device=device))

    def _upload(self, frames: Frames, device: torch.device) -> bool:
        """Whether the clip lies on a CUDA device; brings it there the first time, if it is small enough."""
        device = _with_index(device)
        if device not in self._frames_on_device:
            if frames.nbytes > _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
                return False
            self._frames_on_device[device] = torch.from_numpy(frames).to(device)
        return True

    def _checked(self, indices: Union[Sequence[int], Tensor]) -> np.ndarray:
        array = np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices, dtype=np.int64).reshape(-1)
        if array.size and (array.min() < 0 or array.max() >= len(self)):
            raise IndexError(f"Frames {array.tolist()} are not all among the clip's frames 0 to {len(self) - 1}.")
        return array

    def _pixels(self) -> Frames:
        if self._frames is None:
            raise InputError(
                f"{self.options.source}, from which the clip {self.info.name} came, is gone: bring it back, or "
                "give a trained run its new place with ns-ext run relocate RUN --data PATH."
            )
        return self._frames


# Stores live as long as somebody uses them; the last one opened also lives until the next is opened, so that the
# dataparser's probe and the datasets decode once.
_stores: "weakref.WeakValueDictionary[Any, FrameStore]" = weakref.WeakValueDictionary()
_last_opened: Optional[FrameStore] = None


def open_clip(options: ClipOptions, known: Optional[ClipInfo] = None) -> FrameStore:
    """Decode a clip, or hand out the one that this process decoded before with the same options.

    Args:
        options: What to take from where.
        known: Facts from an earlier run; with them a missing source gives a store without pixels, not an error.

    Raises:
        InputError: The source is missing or holds no frames, or an option does not fit it.
    """
    global _last_opened
    if options.source is not None and not options.source.exists() and known is not None:
        return FrameStore(known, options)
    _check(options)
    if options.source is not None:
        options = replace(options, source=options.source.resolve())
    key = (options, _signature(options.source))
    store = _stores.get(key)
    if store is None:
        _last_opened = None  # frees the previous clip before the next is decoded
        store = _stores[key] = _load(options, key)
    _last_opened = store
    return store


def _with_index(device: torch.device) -> torch.device:
    """`cuda` and `cuda:0` may be the same device, but they are no equal keys."""
    return torch.device("cuda", torch.cuda.current_device()) if device.index is None else device


class _ProceduralSource(Source):
    def __init__(self, num_frames: int, size: Tuple[int, int], fps: Optional[float]):
        super().__init__("procedural", num_frames, 0, size[0], size[1], fps or DEFAULT_FPS, 0)

    def read(self, first: int, last: Optional[int], step: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        for index in range(self.num_frames)[first : None if last is None else last + 1 : step]:
            yield draw_frame(index, self.height, self.width)


def _check(options: ClipOptions) -> None:
    """Refuse options that fit no source."""
    last_frame = options.last_frame
    if (
        options.first_frame < 0
        or options.frame_step < 1
        or (last_frame is not None and last_frame < options.first_frame)
    ):
        raise InputError(
            f"--first-frame {options.first_frame} --last-frame {last_frame} --frame-step {options.frame_step} selects "
            "no frames: they count from 0, the last is not before the first, and the step is at least 1."
        )
    if options.fps is not None and not options.fps > 0:
        raise InputError(f"--fps {options.fps} must be positive.")
    if options.procedural_frames < 1 or min(options.procedural_size) < 1:
        raise InputError("--procedural-frames and --procedural-size must be positive.")


def _signature(source: Optional[Path]) -> Any:
    """Changes whenever the files behind a path change."""
    if source is None or not source.exists():
        return None
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _load(options: ClipOptions, key: Any) -> FrameStore:
    if options.source is None:
        source = _ProceduralSource(options.procedural_frames, options.procedural_size, options.fps)
    else:
        source = open_source(options.source, options.fps, options.yuv_size)
    count = _count_selected(options, source)
    window = crop_window(options.crop, source.height, source.width)
    kept_height, kept_width = (part.stop - part.start for part in window)
    height, width = target_size(kept_height, kept_width, options.size, options.max_side)
    if options.size is not None and abs(width * kept_height / (height * kept_width) - 1) > _SAME_SHAPE:
        warn(f"--size {width} {height} squeezes pictures of {kept_width}x{kept_height}: --max-side keeps their shape.")

    def decode(allocate: Allocate) -> Frames:
        frames = allocate((count, height, width, 3))
        num_decoded = _decode_into(frames, source, options, window)
        if num_decoded > count:  # rare containers hold more frames than packets; now the number is known
            frames = allocate((num_decoded, height, width, 3))
            num_decoded = _decode_into(frames, source, options, window)
        return frames[:num_decoded]

    num_bytes = count * height * width * 3
    if num_bytes <= min(options.memory_budget_gb * 1e9, _physical_memory() / 2):
        frames = decode(lambda shape: np.empty(shape, np.uint8))
    else:
        frames = frames_on_disk(key, num_bytes, decode)
    # Dropping frames keeps the speed of what is seen.
    fps = source.fps / options.frame_step
    info = ClipInfo(len(frames), height, width, fps, source.name, source.num_bytes)
    return FrameStore(info, options, frames)


def _count_selected(options: ClipOptions, source: Source) -> int:
    """Frames that the options select, going by what the source says of itself."""
    total = source.num_frames + source.num_missing
    for flag, frame in (("--first-frame", options.first_frame), ("--last-frame", options.last_frame)):
        if frame is not None and frame >= total:
            raise InputError(f"{flag} {frame} lies beyond the clip, whose {total} frames count from 0 to {total - 1}.")
    last = total - 1 if options.last_frame is None else options.last_frame
    return len(range(options.first_frame, last + 1, options.frame_step))


def _decode_into(frames: Frames, source: Source, options: ClipOptions, window: Tuple[slice, slice]) -> int:
    """Fill the array; returns how many frames there were, and says what was lost."""
    pictures = source.read(options.first_frame, options.last_frame, options.frame_step)
    pictures = track(
        pictures,
        f"Reading {source.name}",
        len(frames),
        console=CONSOLE,
        transient=True,
        disable=len(frames) < _LONG_CLIP,
    )
    count = 0
    for count, picture in enumerate(pictures, start=1):
        if count <= len(frames):
            frames[count - 1] = resize_frame(picture[window], *frames.shape[1:3])
    if count == 0:
        raise InputError(
            f"None of the chosen frames of {options.source} can be decoded: the file is damaged or cut short."
        )
    if source.num_damaged or (count < len(frames) and source.num_missing):
        warn(
            f"{options.source} is damaged or cut short: {count} of the chosen {len(frames)} frames can be decoded; "
            "going on with those."
        )
    return count


def _physical_memory() -> float:
    """Bytes of memory in this machine; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
