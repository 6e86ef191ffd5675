"""The suite's neutral layout of a filmed person: plain files that need no pickle and no form.

`transforms.json` as nerfstudio has it (intrinsics, the w and h that they are for, `transform_matrix`: camera to world,
OpenGL axes, metres), each frame with `file_path`, `mask_path`, `camera_id` (which camera) and `frame_index` (which
moment); beside it perhaps a `body.npz`, whose `frame_ids` are these indices. Cameras stand still, and all of them have
every moment. Where no frame says camera or moment, all are photographs of one moment, each by a camera of its own.
"""

from pathlib import Path
from typing import Any, Dict, Sequence

import numpy as np

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.capture import CaptureCamera, CaptureLayout, picture_size
from nerfstudio_ext.human.photo_frames import PhotoFrame, read_frame, read_transforms
from nerfstudio_ext.human.zju_layout import UnitName, read_layout

TRANSFORMS, BODY = "transforms.json", "body.npz"
FILES = ("file_path", "mask_path")
STILL = 1e-5
"""Metres, and pixels per pixel, that a camera's numbers may differ by from moment to moment."""


def open_layout(folder: Path, unit: UnitName = "mm") -> CaptureLayout:
    """A capture in either layout: `annots.npy` is ZJU-MoCap's, `transforms.json` the neutral one.

    Raises:
        InputError: There is neither, or what is there cannot be read.
    """
    if (folder / TRANSFORMS).is_file() and not (folder / "annots.npy").is_file():
        return read_neutral(folder)
    return read_layout(folder, unit)


def read_neutral(folder: Path) -> CaptureLayout:
    """Cameras and files of a folder, moments in the order of their indices, cameras as they first appear.

    Raises:
        InputError: `transforms.json` is missing or incomplete, a lens is not OpenCV's, a picture has another size than
            its intrinsics are for, a camera moves, or it missed a moment.
    """
    path = folder / TRANSFORMS
    meta = read_transforms(path, "cameras, masks and moments")
    frames: Dict[str, Dict[int, Dict[str, Any]]] = {}
    entries = meta.get("frames", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: frames must be a list with an object per picture.")
    if not any(key in entry for entry in entries for key in ("camera_id", "frame_index")):
        entries = [{**entry, "camera_id": entry.get("file_path"), "frame_index": 0} for entry in entries]
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
    cameras = []
    for name, moments in frames.items():
        parsed = [read_frame(path, meta, k, entry, masked=False) for k, entry in enumerate(moments.values())]
        cameras.append(_standing(parsed, name, path))
        # All pictures of a camera have one size, which is checked where they are opened.
        if parsed[0].photo.is_file():
            parsed[0].check_size(picture_size(parsed[0].photo))
    rows = [[moments[number] for moments in frames.values()] for number in numbers]
    masks = [["mask_path" in entry for entry in row] for row in rows]
    if any(map(any, masks)) and not all(map(all, masks)):
        raise InputError(f"{path} names masks for some pictures only: each needs a mask_path, or none has one.")
    return CaptureLayout(
        folder,
        cameras,
        [[entry["file_path"] for entry in row] for row in rows],
        numbers,
        None,
        [[entry["mask_path"] for entry in row] for row in rows] if masks[0][0] else None,
        folder / BODY if (folder / BODY).is_file() else None,
    )


def _standing(frames: Sequence[PhotoFrame], name: str, path: Path) -> CaptureCamera:
    """The camera that all moments of one name agree on."""
    found = np.stack([
        np.concatenate([frame.matrix.ravel(), frame.lens, frame.pose.double().numpy().ravel()]) for frame in frames
    ])  # fmt: skip
    apart = np.abs(found - found[0]).max(0) / np.maximum(1, np.abs(found[0]))
    if apart.max() > STILL:
        raise InputError(f"{path}: camera {name} moves or zooms; cameras must stand still.")
    pose = found[0][14:].reshape(3, 4)
    rotation = (pose[:, :3] * [1.0, -1.0, -1.0]).T
    # OpenCV's pixel centres are at integers, nerfstudio's half a pixel further.
    calibration = frames[0].matrix - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
    return CaptureCamera(calibration, frames[0].lens, rotation, -rotation @ pose[:, 3])
