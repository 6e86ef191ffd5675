"""One moment of a recording as photographs with masks, cameras and keypoints, and a sheet that shows them together."""

from pathlib import Path
from typing import List, Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from nerfstudio_ext.human.capture import CapturedScene
from nerfstudio_ext.human.masks import touched
from nerfstudio_ext.human.photos import write_photos
from nerfstudio_ext.human.subject import Subject

SHEET_HEIGHT = 480
MARGIN = 0.15
"""Room around the person in the sheet, as a share of the person's height."""
LEFT, RIGHT, MIDDLE = (255, 70, 50), (60, 150, 255), (255, 225, 60)


def write_moment(
    scene: CapturedScene, frame: int, keypoints: Float[Tensor, "k 3"], names: Sequence[str], folder: Path
) -> None:
    """Write what all cameras saw at one moment, in the layout that `PhotoStore` reads, and `overlay.jpg`.

    Pictures keep their surroundings; of a mask those parts stay that a keypoint falls into, or touches.

    Args:
        scene: Undistorted pictures and masks.
        frame: Of the scene.
        keypoints: World frame, metres.
        names: Of the keypoints.
        folder: Where to write.

    Raises:
        InputError: A picture or a mask cannot be read.
    """
    width, height = (max(sizes) for sizes in zip(*scene.sizes))
    count, points = len(scene.cameras), keypoints.double().numpy()
    # Cameras may differ in size: what is added to the right and below moves no pixel.
    rgb, mask = np.zeros((count, height, width, 3), np.uint8), np.zeros((count, height, width), bool)
    tiles: List[UInt8[np.ndarray, "height width 3"]] = []
    for k, (camera, (w, h)) in enumerate(zip(scene.cameras, scene.sizes)):
        pixels = camera.project(points)
        rgb[k, :h, :w] = scene.picture(frame, k)
        mask[k, :h, :w] = touched(scene.view(frame, k).mask, pixels)
        tiles.append(_tile(rgb[k], mask[k], pixels, names))
    subject = Subject(
        name=folder.name,
        rgb=torch.from_numpy(rgb),
        mask=torch.from_numpy(mask),
        poses=scene.poses(),
        intrinsics=scene.intrinsics(),
        keypoints=keypoints.float(),
    )
    write_photos(subject, range(count), names, folder)
    Image.fromarray(np.concatenate(tiles, axis=1)).save(folder / "overlay.jpg", quality=90)


def _tile(
    rgb: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    pixels: Float[np.ndarray, "k 2"],
    names: Sequence[str],
) -> UInt8[np.ndarray, "height width 3"]:
    """The person's surroundings with the mask's outline and the keypoints, a square."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    inside = pixels[np.isfinite(pixels).all(-1)]
    low, high = inside.min(0), inside.max(0)
    half = (0.5 + MARGIN) * float((high - low).max())
    scale = SHEET_HEIGHT / (2 * half)
    shift = SHEET_HEIGHT / 2 - scale * (low + high) / 2
    motion = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    picture = cv2.warpAffine(rgb, motion, (SHEET_HEIGHT, SHEET_HEIGHT), flags=cv2.INTER_AREA)
    moved = [(outline @ motion[:, :2].T + motion[:, 2]).round().astype(np.int32) for outline in outlines]
    cv2.polylines(picture, moved, True, (255, 255, 255), 1, cv2.LINE_AA)
    for name, (column, row) in zip(names, pixels @ motion[:, :2].T + motion[:, 2]):
        if np.isfinite(column + row):
            colour = LEFT if name.startswith("left") else RIGHT if name.startswith("right") else MIDDLE
            cv2.circle(picture, (round(float(column)), round(float(row))), 4, colour, -1, cv2.LINE_AA)
    return picture
