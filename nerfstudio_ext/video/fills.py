"""Fills that need no network: what inpainting and interpolation are held against."""

import warnings
from typing import Callable, Dict, Iterable, List, Sequence, Tuple

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from nerfstudio_ext.engine.metrics import psnr, psnr_where
from nerfstudio_ext.video.masks import Masks

TELEA_RADIUS = 3
"""Pixels around a hole's edge that the fast-marching fill weighs."""
_STRIP_BYTES = 2**26

Frames = Sequence[UInt8[np.ndarray, "height width 3"]]
Scores = Dict[str, float]
"""PSNR in dB by the names that ns-eval uses."""


def telea(
    frame: UInt8[np.ndarray, "height width 3"], keep: Bool[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Fill the holes of one frame from their edges inwards (fast marching, Telea 2004, as OpenCV has it).

    Args:
        frame: What is in its holes does not matter.
        keep: False in the holes.
    """
    import cv2

    # OpenCV's gradients glance into the hole by a pixel; there they find what no hole can tell.
    blank = np.where(keep[..., None], frame, frame[keep].mean(axis=0).round()).astype(np.uint8)
    return cv2.inpaint(blank, (~keep).astype(np.uint8), TELEA_RADIUS, cv2.INPAINT_TELEA)


class TemporalMedian:
    """Fills holes with the median of what other frames show in the same place.

    A pixel that is in the hole of every frame, as with the papers' masks, has no such median; those are left to Telea.

    Args:
        frames: The clip.
        keeps: False in the holes, per frame.
    """

    def __init__(self, frames: Frames, keeps: Sequence[Bool[np.ndarray, "height width"]]) -> None:
        height, width = keeps[0].shape
        self.seen: Bool[np.ndarray, "height width"] = np.any(np.stack(keeps), axis=0)
        self.picture: UInt8[np.ndarray, "height width 3"] = np.zeros((height, width, 3), np.uint8)
        rows = max(1, _STRIP_BYTES // (12 * len(frames) * width))
        for start in range(0, height, rows):
            strip = slice(start, start + rows)
            values = np.stack([np.where(k[strip, :, None], f[strip], np.nan) for f, k in zip(frames, keeps)])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # pixels that no frame shows
                median = np.nanmedian(values.astype(np.float32), axis=0)
            self.picture[strip] = np.nan_to_num(median).round().astype(np.uint8)

    def __call__(
        self, frame: UInt8[np.ndarray, "height width 3"], keep: Bool[np.ndarray, "height width"]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Fill one frame."""
        filled = np.where(keep[..., None], frame, self.picture)
        known = keep | self.seen
        return filled if known.all() else telea(filled, known)


def inpainted(
    frames: Frames, masks: Masks, watch: Callable[[Frames, str], Iterable] = lambda frames, name: frames
) -> Dict[str, List[UInt8[np.ndarray, "height width 3"]]]:
    """Every frame of a clip with its holes filled, by name of the fill; none looks into the holes.

    Args:
        frames: The clip.
        masks: Where its holes are.
        watch: Hands on the frames that the named fill takes, and may show how far it is.
    """
    keeps = keep_of(masks, len(frames))
    median = TemporalMedian(frames, keeps)
    fills: Dict[str, Callable] = {"Telea": telea}
    # Where holes never move there is nothing that a median could look at.
    if (median.seen & ~np.all(np.stack(keeps), axis=0)).any():
        fills["temporal median"] = median
    return {
        name: [fill(frame, keep) for frame, keep in zip(watch(frames, name), keeps)] for name, fill in fills.items()
    }


def interpolated(frames: Frames) -> Dict[str, List[UInt8[np.ndarray, "height width 3"]]]:
    """The odd frames of a clip from the even ones around them, by name of the fill."""
    before, after = list(frames)[:-2:2], list(frames)[2::2]
    mean = [((a.astype(np.uint16) + b + 1) // 2).astype(np.uint8) for a, b in zip(before, after)]
    return {"neighbour mean": mean, "repeat": before}


def keep_of(masks: Masks, num_frames: int) -> List[Bool[np.ndarray, "height width"]]:
    """Masks as arrays, false in the holes, per frame."""
    return [masks.batch(torch.tensor([k]), "cpu")[0, 0].numpy() > 0.5 for k in range(num_frames)]


def scores(frames: Frames, truth: Frames, keeps: Sequence[Bool[np.ndarray, "height width"]] = ()) -> Scores:
    """PSNR of frames, averaged: ``psnr`` of whole frames, and with masks ``psnr_in_mask`` and ``psnr_out_of_mask``."""
    rows: List[Tuple[float, ...]] = []
    for k, pair in enumerate(zip(frames, truth, strict=True)):
        one, other = (torch.from_numpy(np.ascontiguousarray(x)).permute(2, 0, 1)[None] / 255 for x in pair)
        row = [float(psnr(one, other))]
        if keeps:
            keep = torch.from_numpy(keeps[k])[None, None].float()
            row += [float(psnr_where(one, other, 1 - keep)), float(psnr_where(one, other, keep))]
        rows.append(tuple(row))
    return dict(zip(("psnr", "psnr_in_mask", "psnr_out_of_mask"), np.mean(rows, axis=0).tolist()))
