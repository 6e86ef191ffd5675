"""A refined calibration as files: EasyMocap's pair, a capture's own file with its cameras replaced, and a sheet."""

import json
from pathlib import Path
from typing import List, Optional, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.video_capture import covering
from nerfstudio_ext.human.agreement import OVERLAY
from nerfstudio_ext.human.camera_refinement import CONFIDENCE, Refinement
from nerfstudio_ext.human.capture import CaptureCamera, Size
from nerfstudio_ext.human.capture_keypoints import undistorted
from nerfstudio_ext.human.keypoints import Keypoints2D
from nerfstudio_ext.human.neutral_layout import TRANSFORMS
from nerfstudio_ext.human.photo_frames import read_transforms
from nerfstudio_ext.human.zju_layout import UnitName, read_plain
from nerfstudio_ext.video.source import Source

TILE, MARGIN = 720, 0.08
"""Height of a camera's picture on the sheet, and what it shows around the person, as a share of the person."""
FOUND, AFTER = (255, 255, 255), (60, 220, 255)
FINE = 4
"""Bits of a pixel in which lines are drawn."""


def write_capture_file(folder: Path, source: Path, cameras: Sequence[CaptureCamera], unit: UnitName) -> Optional[Path]:
    """Write a capture's annots.npy or transforms.json anew, with other cameras and all else as it was.

    Args:
        folder: Where to write.
        source: The folder of the capture, or its annots.npy.
        cameras: In the capture's order.
        unit: Of T in annots.npy.

    Returns:
        The file; none where the source is no capture.
    """
    annots = source / "annots.npy" if source.is_dir() else source
    if annots.name == "annots.npy" and annots.is_file():
        content = read_plain(annots)
        scale = 1000.0 if unit == "mm" else 1.0
        content["cams"] = {
            "K": [camera.calibration for camera in cameras],
            "D": [camera.distortion[:, None] for camera in cameras],
            "R": [camera.rotation for camera in cameras],
            "T": [scale * camera.translation[:, None] for camera in cameras],
        }
        np.save(folder / annots.name, np.array(content, dtype=object), allow_pickle=True)
        return folder / annots.name
    if not (source / TRANSFORMS).is_file():
        return None
    meta = read_transforms(source / TRANSFORMS, "cameras")
    names = [str(entry.get("camera_id", entry["file_path"])) for entry in meta["frames"]]
    order = list(dict.fromkeys(names))
    for name, entry in zip(names, meta["frames"]):
        camera = cameras[order.index(name)]
        entry["transform_matrix"] = [*camera.pose().tolist(), [0.0, 0.0, 0.0, 1.0]]
        entry["fl_x"], entry["fl_y"] = (float(camera.calibration[k, k]) for k in range(2))
    (folder / TRANSFORMS).write_text(json.dumps(meta, indent=1), "utf8")
    return folder / TRANSFORMS


def write_sheet(
    path: Path,
    refined: Refinement,
    keypoints: Keypoints2D,
    numbers: Sequence[int],
    size: Size,
    videos: Sequence[Source] = (),
) -> int:
    """Draw one held-out moment: where each joint was detected (dots), and from there to where its point is seen with
    the delivered calibration (pink) and with the refined one (blue).

    Args:
        path: The picture to write.
        refined: Of these key points.
        keypoints: In pixels of the pictures as they are.
        numbers: Frame of the videos that each frame of the key points is.
        size: Of the pictures that the calibration is for.
        videos: One per camera, or none: drawn on grey.

    Returns:
        The frame that is shown: of those that were held out the one with most detections that are explained.

    Raises:
        InputError: A video has no such frame.
    """
    explained = np.isfinite(refined.after).all(-1).sum((1, 2))
    shown = int(np.argmax(np.where(refined.held_out, explained, -1)))
    flat = undistorted(keypoints, refined.delivered, "the key points").values[shown]
    tiles = []
    for k, camera in enumerate(refined.delivered):
        picture = np.full((size[1], size[0], 3), 40, np.uint8)
        if videos:
            frame = next(iter(videos[k].read(numbers[shown], numbers[shown], 1)), None)
            if frame is None:
                raise InputError(f"The video {videos[k].name} has no frame {numbers[shown]}.")
            picture = cv2.undistort(covering(frame, size), camera.calibration, camera.distortion) // 2
        there = flat[k, :, 2] >= CONFIDENCE
        tiles.append(_tile(picture, flat[k, there, :2], [e[shown, k, there] for e in (refined.before, refined.after)]))
    Image.fromarray(np.concatenate(tiles, axis=1)).save(path, quality=88)
    return numbers[shown]


def _tile(
    picture: UInt8[np.ndarray, "height width 3"],
    found: Float[np.ndarray, "joints 2"],
    errors: List[Float[np.ndarray, "joints 2"]],
) -> UInt8[np.ndarray, "tile_height tile_width 3"]:
    """The person large, and lines from the joints that were found along the errors."""
    height, width = picture.shape[:2]
    inside = found[((found >= 0) & (found < [width, height])).all(1)]
    low, high = (inside.min(0), inside.max(0)) if len(inside) else (np.zeros(2), np.array([width, height]))
    tall = (1 + 2 * MARGIN) * max(high[1] - low[1], (high[0] - low[0]) / 0.6, 16.0)
    zoom, corner = TILE / tall, (low + high) / 2 - [0.3 * tall, 0.5 * tall]
    motion = np.array([[zoom, 0, -zoom * corner[0]], [0, zoom, -zoom * corner[1]]])
    drawn = cv2.warpAffine(picture, motion, (round(0.6 * TILE), TILE), flags=cv2.INTER_LINEAR)

    def place(point: np.ndarray) -> List[int]:
        return np.round((point - corner) * zoom * 2**FINE).astype(int).tolist()

    for colour, apart in zip((OVERLAY, AFTER), errors):
        for joint, error in zip(found, apart):
            if np.isfinite(error).all():
                cv2.line(drawn, place(joint), place(joint + error), colour, 2, cv2.LINE_AA, FINE)
    for joint in found:
        cv2.circle(drawn, place(joint), 2 << FINE, FOUND, -1, cv2.LINE_AA, FINE)
    return drawn
