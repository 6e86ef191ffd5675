"""The suite's neutral layout of a filmed person: plain files that need no pickle and no form.

`transforms.json` as nerfstudio has it (intrinsics, `transform_matrix`: camera to world, OpenGL axes, metres), each
frame with `file_path`, `mask_path`, `camera_id` (which camera) and `frame_index` (which moment); beside it perhaps a
`body.npz`, whose `frame_ids` are these indices. Cameras stand still, and all of them have every moment.
"""

from pathlib import Path
from typing import Any, Dict, List

import numpy as np

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.capture import CaptureCamera
from nerfstudio_ext.human.photo_frames import read_transforms
from nerfstudio_ext.human.zju_layout import UnitName, ZjuLayout, read_layout

TRANSFORMS, BODY = "transforms.json", "body.npz"
FILES = ("file_path", "mask_path")
LENS = ("k1", "k2", "p1", "p2", "k3")
STILL = 1e-5
"""Metres, and pixels per pixel, that a camera's numbers may differ by from moment to moment."""


def open_layout(folder: Path, unit: UnitName = "mm") -> ZjuLayout:
    """A capture in either layout: `annots.npy` is ZJU-MoCap's, `transforms.json` the neutral one.

    Raises:
        InputError: There is neither, or what is there cannot be read.
    """
    if (folder / TRANSFORMS).is_file() and not (folder / "annots.npy").is_file():
        return read_neutral(folder)
    return read_layout(folder, unit)


def read_neutral(folder: Path) -> ZjuLayout:
    """Cameras and files of a folder, moments in the order of their indices, cameras as they first appear.

    Raises:
        InputError: `transforms.json` is missing or incomplete, a camera moves, or it missed a moment.
    """
    path = folder / TRANSFORMS
    meta = read_transforms(path, "cameras, masks and moments")
    frames: Dict[str, Dict[int, Dict[str, Any]]] = {}
    entries = meta.get("frames", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: frames must be a list with an object per picture.")
    for entry in entries:
        where = f"{path}: {entry.get('file_path')}"
        lacking = [key for key in ("file_path", "camera_id", "frame_index") if key not in entry]
        if lacking:
            raise InputError(f"{where} has no {', '.join(lacking)}: each picture says which camera and moment it is.")
        number = entry["frame_index"]
        if not isinstance(number, int) or not all(isinstance(entry.get(key, ""), str) for key in FILES):
            raise InputError(f"{where}: frame_index is a whole number, and file_path and mask_path are words.")
        moments = frames.setdefault(str(entry["camera_id"]), {})
        if number in moments:
            raise InputError(f"{where} is the second picture of camera {entry['camera_id']} at this moment.")
        moments[number] = entry
    if not frames:
        raise InputError(f"{path} names no picture.")
    numbers = sorted(set().union(*frames.values()))
    for name, moments in frames.items():
        if len(moments) < len(numbers):
            missed = next(number for number in numbers if number not in moments)
            raise InputError(f"{path}: camera {name} has no picture of frame_index {missed}; leave out moments that a "
                             "camera missed, or that camera.")  # fmt: skip
    cameras = [_standing(meta, name, moments, path) for name, moments in frames.items()]
    rows = [[moments[number] for moments in frames.values()] for number in numbers]
    masks = [["mask_path" in entry for entry in row] for row in rows]
    if any(map(any, masks)) and not all(map(all, masks)):
        raise InputError(f"{path} names masks for some pictures only: each needs a mask_path, or none has one.")
    return ZjuLayout(
        folder,
        cameras,
        [[entry["file_path"] for entry in row] for row in rows],
        numbers,
        None,
        [[entry["mask_path"] for entry in row] for row in rows] if masks[0][0] else None,
        folder / BODY if (folder / BODY).is_file() else None,
    )


def _standing(meta: Dict[str, Any], name: str, moments: Dict[int, Dict[str, Any]], path: Path) -> CaptureCamera:
    """The camera that all moments of one name agree on."""
    found: List[np.ndarray] = []
    for entry in moments.values():
        values = {**meta, **entry}
        where = f"{path}: {entry['file_path']}"
        lacking = [key for key in ("fl_x", "cx", "cy", "transform_matrix") if key not in values]
        if lacking:
            raise InputError(f"{where} is not calibrated: it has no {', '.join(lacking)}.")
        try:
            lens = [float(values.get(key, 0.0)) for key in LENS]
            inside = [float(values[key]) for key in ("fl_x", "fl_y", "cx", "cy") if key in values]
            outside = np.asarray(values["transform_matrix"], dtype=np.float64)[:3].reshape(3, 4)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: intrinsics are numbers, transform_matrix is 4x4 ({error}).") from error
        fx, *fy, cx, cy = inside
        found.append(np.array([fx, *(fy or [fx]), cx, cy, *lens, *outside.ravel()]))
    apart = np.abs(np.stack(found) - found[0]).max(0) / np.maximum(1, np.abs(found[0]))
    if not np.isfinite(found[0]).all() or apart.max() > STILL:
        raise InputError(f"{path}: camera {name} moves, zooms or has no finite numbers; cameras must stand still.")
    fx, fy, cx, cy = found[0][:4]
    pose = found[0][9:].reshape(3, 4)
    rotation = (pose[:, :3] * [1.0, -1.0, -1.0]).T
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2 or np.linalg.det(rotation) < 0:
        raise InputError(f"{path}: the transform_matrix of camera {name} holds no rotation (camera to world, OpenGL).")
    # OpenCV's pixel centres are at integers, nerfstudio's half a pixel further.
    calibration = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    return CaptureCamera(calibration, found[0][4:9], rotation, -rotation @ pose[:, 3])
