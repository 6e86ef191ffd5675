"""Cropping and shrinking single frames."""

from typing import Optional, Tuple

import numpy as np
from jaxtyping import UInt8

from nerfstudio_ext.engine.errors import InputError


def box_average(frame: UInt8[np.ndarray, "height width 3"], rows: int, columns: int) -> UInt8[np.ndarray, "h w 3"]:
    """Mean of every block of `rows` x `columns` pixels, rounded to the nearest integer (ties to even).

    Args:
        frame: Height and width are multiples of `rows` and `columns`.
        rows: Block height in pixels.
        columns: Block width in pixels.
    """
    blocks = frame.reshape(frame.shape[0] // rows, rows, frame.shape[1] // columns, columns, 3)
    area = rows * columns
    total = np.zeros((blocks.shape[0], blocks.shape[2], 3), np.uint16 if area <= 257 else np.uint32)
    for row in range(rows):
        for column in range(columns):
            total += blocks[:, row, :, column]
    return np.rint(total / area).astype(np.uint8)


def resize_frame(frame: UInt8[np.ndarray, "height width 3"], height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """Resize one frame: exact box average for integer factors, area average when shrinking, bicubic otherwise."""
    old_height, old_width = frame.shape[:2]
    if (old_height, old_width) == (height, width):
        return frame
    if old_height % height == 0 and old_width % width == 0:
        return box_average(frame, old_height // height, old_width // width)

    import cv2

    shrinks = height <= old_height and width <= old_width
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def crop_window(crop: Optional[Tuple[int, int, int, int]], height: int, width: int) -> Tuple[slice, slice]:
    """Rows and columns that a crop keeps.

    Args:
        crop: x, y, width, height in source pixels; None keeps the whole frame.
        height: Height of the source in pixels.
        width: Width of the source in pixels.

    Raises:
        InputError: The window does not lie inside the frame.
    """
    if crop is None:
        return slice(0, height), slice(0, width)
    x, y, crop_width, crop_height = crop
    if min(x, y) < 0 or min(crop_width, crop_height) < 1 or x + crop_width > width or y + crop_height > height:
        raise InputError(
            f"--crop {x} {y} {crop_width} {crop_height} (x, y, width, height) does not fit into the frame, "
            f"which is {width} wide and {height} high."
        )
    return slice(y, y + crop_height), slice(x, x + crop_width)


def target_size(height: int, width: int, size: Optional[Tuple[int, int]], max_side: Optional[int]) -> Tuple[int, int]:
    """Height and width after resizing a frame of `height` x `width`.

    Args:
        height: Height in pixels after the crop.
        width: Width in pixels after the crop.
        size: Exact height and width asked for.
        max_side: Largest length of the longer side; smaller frames stay as they are.

    Raises:
        InputError: Both are given, or one is not positive.
    """
    if size is not None and max_side is not None:
        raise InputError("--size and --max-side exclude each other: give one of them.")
    if size is not None:
        if min(size) < 1:
            raise InputError(f"--size {size[1]} {size[0]} (width, height) must be positive.")
        return size[0], size[1]
    if max_side is None or max(height, width) <= max_side:
        return height, width
    if max_side < 1:
        raise InputError(f"--max-side {max_side} must be positive.")
    scale = max_side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
