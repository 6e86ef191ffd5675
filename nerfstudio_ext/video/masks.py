"""Holes in a clip for inpainting: the papers' two masks, or the user's own pictures or video."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video.frames import ClipOptions, FrameStore, open_clip

BUILT_IN = ("center", "disperse")
DISPERSE_SIDE = 50 / 1080
"""Side of a square of the disperse mask over the frame's height (50 pixels at 1080p)."""


class Masks:
    """What is kept of every frame: true outside the holes. Copying gives the same object, as for frames.

    Args:
        keep: One mask for all frames, or None where `store` has one per frame.
        store: Mask pictures, white where pixels are kept.
    """

    def __init__(self, keep: Optional[Bool[np.ndarray, "height width"]], store: Optional[FrameStore] = None) -> None:
        self._keep = keep
        self._store = store

    def __deepcopy__(self, memo: Dict[int, Any]) -> "Masks":
        return self

    def batch(self, indices: Int[Tensor, "frames"], device: Any) -> Float[Tensor, "frames 1 height width"]:
        """Masks of frames: 1 where pixels are kept, 0 in the holes."""
        if self._keep is not None:
            keep = torch.from_numpy(self._keep).to(device).float()
            return keep.expand(len(indices), 1, *keep.shape)
        assert self._store is not None
        return (self._store.batch(indices, device).mean(1, keepdim=True) >= 0.5).float()


def center_mask(height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """One box in the middle, a quarter of the frame high and wide (Boosting-NeRV section 4.3)."""
    keep = np.ones((height, width), bool)
    rows, columns = height // 8, width // 8
    keep[height // 2 - rows : height // 2 + rows, width // 2 - columns : width // 2 + columns] = False
    return keep


def disperse_mask(height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Five squares, in the middle and half-way to the corners; 50 pixels wide at 1080p and in proportion elsewhere."""
    keep = np.ones((height, width), bool)
    half = max(1, round(DISPERSE_SIDE * height / 2))
    for y, x in ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
        row, column = int(y * height), int(x * width)
        keep[max(0, row - half) : row + half, max(0, column - half) : column + half] = False
    return keep


def open_masks(name: str, options: ClipOptions, num_frames: int, height: int, width: int) -> Masks:
    """The masks that a user asks for.

    Args:
        name: ``center``, ``disperse``, or the path of a picture (one mask for all frames), of a folder of pictures or
            of a video (one mask per frame). White pixels are kept, black ones are the hole.
        options: What was taken from the clip's source; the same crop is taken from the masks.
        num_frames: Frames of the clip.
        height: Height of its frames.
        width: Width of its frames.

    Raises:
        InputError: There is no such mask, its frames are not as many as the clip's, or it keeps nothing.
    """
    if name == "center":
        return Masks(center_mask(height, width))
    if name == "disperse":
        return Masks(disperse_mask(height, width))
    path = Path(name).expanduser().absolute()
    if not path.exists():
        raise InputError(f"There is no mask {name}: give center, disperse, a picture, a folder of pictures or a video.")
    still = replace(options, source=path, first_frame=0, last_frame=None, frame_step=1, size=(height, width))
    still = replace(still, max_side=None, fps=None)
    store = open_clip(still)
    if len(store) == 1:
        masks = Masks(store[0].mean(axis=-1) >= 127.5)
    else:
        picked = replace(
            still, first_frame=options.first_frame, last_frame=options.last_frame, frame_step=options.frame_step
        )
        store = open_clip(picked)
        if len(store) != num_frames:
            raise InputError(f"The mask {name} has {len(store)} of the chosen frames, but the clip has {num_frames}.")
        masks = Masks(None, store)
    if not masks.batch(torch.arange(1), "cpu").any():
        raise InputError(f"The mask {name} keeps no pixel of frame 0: white is what is kept, black is the hole.")
    return masks
