"""Choosing how to read a path, and reading folders of pictures."""

import re
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

import numpy as np
from jaxtyping import UInt8

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video.source import DEFAULT_FPS, Source, warn
from nerfstudio_ext.video.video_file import VideoSource, open_raw

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def open_source(path: Path, fps: Optional[float] = None, yuv_size: Optional[Tuple[int, int]] = None) -> Source:
    """Look at a path and choose how to read it.

    Args:
        path: A video file, a picture, a folder of pictures, or a raw 8-bit 4:2:0 `.yuv` file.
        fps: Overrides the source's frame rate.
        yuv_size: Width and height of a raw `.yuv` file whose name does not tell.

    Raises:
        InputError: The path is missing or holds no frames.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: give --data a video file, a folder of frames or a raw .yuv file.")
    if path.is_dir():
        return FolderSource(_list_frames(path), path.resolve().name, fps)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return FolderSource([path], path.stem, fps)
    if path.suffix.lower() == ".yuv":
        return open_raw(path, fps, yuv_size)
    return VideoSource(path, fps)


class FolderSource(Source):
    """Pictures in natural order of their names (frame2 before frame10).

    Grey pictures become RGB, transparency is dropped, 16 bits per channel become 8 (the high byte).

    Args:
        files: The pictures, at least one.
        name: Short name for people.
        fps: Frames per second.
    """

    def __init__(self, files: List[Path], name: str, fps: Optional[float] = None):
        self.files = files
        self._has_warned = False
        height, width = self._load(files[0]).shape[:2]
        num_bytes = sum(file.stat().st_size for file in files)
        super().__init__(name, len(files), 0, height, width, fps or DEFAULT_FPS, num_bytes)

    def read(self, first: int, last: Optional[int], step: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        for file in self.files[first : None if last is None else last + 1 : step]:
            picture = self._load(file)
            if picture.shape[:2] != (self.height, self.width):
                raise InputError(
                    f"All frames must have one size, but {file} is {picture.shape[1]}x{picture.shape[0]} and "
                    f"{self.files[0].name} is {self.width}x{self.height}: resize or remove the odd ones."
                )
            yield picture

    def _load(self, file: Path) -> UInt8[np.ndarray, "height width 3"]:
        from PIL import Image, ImageOps

        try:
            with Image.open(file) as image:
                image = ImageOps.exif_transpose(image)
                mode, is_transparent = image.mode, image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
                pixels = np.asarray(image if mode[0] in "IF" else image.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{file} cannot be read as a picture: replace or remove it.") from error
        if mode == "F":
            raise InputError(f"{file} holds floating-point pixels: save the frames with 8 or 16 bits per channel.")
        if is_transparent and not self._has_warned:
            self._has_warned = True
            warn(f"{file} has transparency: it is dropped, the colours beneath it are used.")
        if pixels.ndim == 2:
            grey = np.clip(pixels.astype(np.int64) >> 8, 0, 255).astype(np.uint8)
            pixels = np.repeat(grey[..., None], 3, axis=2)
        return pixels


def _list_frames(folder: Path) -> List[Path]:
    """Pictures of a folder in natural order of their names."""
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    frames = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    if not frames:
        found = ", ".join(sorted(file.name for file in files)[:3])
        hint = f"it holds {found}" if found else "it is empty"
        raise InputError(
            f"No frames in the folder {folder} ({hint}): give a folder with pictures "
            f"({' '.join(suffix[1:] for suffix in IMAGE_SUFFIXES)}) or the path of a video file."
        )
    return sorted(frames, key=lambda file: _natural_key(file.name))


def _natural_key(name: str) -> List[Any]:
    """Split a name into text, number, text, ... so that frame2 sorts before frame10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]
