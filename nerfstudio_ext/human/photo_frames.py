"""What `transforms.json` says about photographs of a person, parsed and checked once, before any picture is opened."""

import json
import math
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import MAX_EXTENT
from nerfstudio_ext.human.capture import Size

NEAREST = 5e-3
"""Metres; cameras that stand closer together than this see the same."""
MODELS = ("PERSPECTIVE", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
"""Camera models whose lens is OpenCV's k1, k2, p1, p2, k3, or a part of it."""
LENS = ("k1", "k2", "p1", "p2", "k3")


@dataclass(frozen=True)
class PhotoFrame:
    """One photo of `transforms.json`."""

    where: str
    """File and photo, for messages."""
    photo: Path
    mask: Path
    matrix: Float[np.ndarray, "3 3"]
    """Intrinsics; the centre of the first pixel is at 0.5."""
    lens: Float[np.ndarray, "5"]
    """k1, k2, p1, p2, k3."""
    pose: Float[Tensor, "3 4"]
    """Camera to world, OpenGL axes, metres."""
    size: Dict[int, int]
    """Width (0) and height (1) in pixels that the intrinsics are for, where the file says."""

    def check_size(self, found: Size) -> None:
        """Refuse a picture of another size than its intrinsics are for.

        Raises:
            InputError: The sizes differ.
        """
        if any(found[axis] != wanted for axis, wanted in self.size.items()):
            wanted = "x".join(str(self.size.get(axis, found[axis])) for axis in (0, 1))
            raise InputError(
                f"{self.where} is {found[0]}x{found[1]}, but its intrinsics are for {wanted} (w and h): scale fl_x, "
                "fl_y, cx and cy with the picture."
            )


@dataclass(frozen=True)
class PhotoFolder:
    """All that a `transforms.json` says about one person."""

    frames: Tuple[PhotoFrame, ...]
    keypoints: Float[Tensor, "k 3"]
    """World frame, metres, in the order that was asked for."""


def read_folder(path: Path, keypoint_names: Sequence[str]) -> PhotoFolder:
    """Parse a `transforms.json`.

    Args:
        path: The file; the pictures that it names are looked for beside it.
        keypoint_names: Keypoints in the order that the network knows.

    Raises:
        InputError: It is none, or something in it is missing, of another kind or impossible. The message says where.
    """
    meta = read_transforms(path, "cameras, masks and keypoints")
    listed = meta.get("frames", [])
    if not isinstance(listed, list):
        raise InputError(f"{path}: frames is no list with an entry for each photo.")
    if len(listed) < 2:
        raise InputError(f"{path} names {len(listed)} photo: a person is reconstructed from two at least.")
    frames = tuple(read_frame(path, meta, number, frame) for number, frame in enumerate(listed))
    for (k, one), (n, other) in combinations(enumerate(frames), 2):
        if float((one.pose[:, 3] - other.pose[:, 3]).norm()) < NEAREST:
            raise InputError(
                f"{path}: frames {k} and {n} ({one.photo.name}, {other.photo.name}) are taken from the same place, "
                "which shows no depth: leave one of them out, or mend its transform_matrix."
            )
    return PhotoFolder(frames, read_keypoints(path, meta, keypoint_names))


def read_transforms(path: Path, contents: str) -> Dict[str, Any]:
    """What a `transforms.json` holds, unchecked.

    Args:
        path: Of the file.
        contents: What it is read for, in words.

    Raises:
        InputError: There is no such file, or it holds no JSON object.
    """
    if not path.is_file():
        raise InputError(f"There is no {path}: photos need a transforms.json with {contents}.")
    try:
        found = json.loads(path.read_text("utf8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no object with {contents}.")
    return found


def read_frame(path: Path, meta: Dict[str, Any], number: int, frame: Any, masked: bool = True) -> PhotoFrame:
    """One entry of a file's frames.

    Args:
        path: The file.
        meta: All that it holds.
        number: Of the frame.
        frame: The entry.
        masked: A mask_path is needed; otherwise the photo stands for it.

    Raises:
        InputError: Something is missing, of another kind or impossible.
    """
    if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str) or not frame["file_path"]:
        raise InputError(f"{path}: frame {number} has no file_path that names its photo.")
    where = f"{path}: {frame['file_path']}"
    if masked and (not isinstance(frame.get("mask_path"), str) or not frame["mask_path"]):
        raise InputError(f"{where} has no mask_path; cut the person out.")
    values = {**meta, **frame}
    lacking = [key for key in ("fl_x", "cx", "cy", "transform_matrix") if key not in values]
    if lacking:
        raise InputError(f"{where} is not calibrated: it has no {', '.join(lacking)}.")
    values.setdefault("fl_y", values["fl_x"])
    fx, fy, cx, cy = (_number(values[key], where, key) for key in ("fl_x", "fl_y", "cx", "cy"))
    if min(fx, fy) <= 0:
        raise InputError(f"{where}: fl_x and fl_y are {fx:g} and {fy:g}, but focal lengths are pixels, more than 0.")
    return PhotoFrame(
        where=where,
        photo=path.parent / frame["file_path"],
        mask=path.parent / frame["mask_path" if masked else "file_path"],
        matrix=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64),
        lens=_lens(values, where),
        pose=_pose(values["transform_matrix"], where),
        size={k: round(_number(values[key], where, key)) for k, key in enumerate("wh") if values.get(key) is not None},
    )


def _number(value: Any, where: str, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{where}: {key} is {json.dumps(value)}, which is no number.")
    return float(value)


def _lens(values: Dict[str, Any], where: str) -> Float[np.ndarray, "5"]:
    model = values.get("camera_model", "OPENCV")
    lens = np.array([_number(values.get(key, 0.0), where, key) for key in LENS])
    rest = [key for key in ("k4", "k5", "k6") if _number(values.get(key, 0.0), where, key) != 0]
    if model not in MODELS:
        raise InputError(
            f"{where}: camera_model {model} is none of {', '.join(MODELS)}: undistort the photo first, and drop "
            "camera_model and the lens from transforms.json."
        )
    if rest:
        raise InputError(
            f"{where}: the lens has {', '.join(rest)}, but {', '.join(LENS)} is all that is taken out: undistort the "
            "photo first."
        )
    return lens


def _rows(value: Any, width: int, where: str) -> List[List[float]]:
    """Rows of at least so many numbers, cut to that; anything else is refused."""
    rows = value if isinstance(value, list) else [value]
    if not all(isinstance(row, list) and len(row) >= width for row in rows):
        raise InputError(f"{where} is not made of rows of {width} numbers.")
    return [[_number(entry, where, "an entry") for entry in row[:width]] for row in rows]


def _pose(value: Any, where: str) -> Float[Tensor, "3 4"]:
    rows = _rows(value, 4, f"{where}: transform_matrix")
    if len(rows) not in (3, 4):
        raise InputError(f"{where}: transform_matrix has {len(rows)} rows, but a pose has 3, or 4.")
    pose = torch.tensor(rows[:3], dtype=torch.float32)
    rotation = pose[:, :3].double()
    if float((rotation.T @ rotation - torch.eye(3).double()).abs().max()) > 1e-2:
        lengths = ", ".join(f"{float(length):.3g}" for length in rotation.norm(dim=0))
        raise InputError(
            f"{where}: the left three columns of transform_matrix are no rotation (lengths {lengths}): they must be "
            "perpendicular and of length 1; a scale goes into the positions alone."
        )
    if float(torch.linalg.det(rotation)) < 0:
        raise InputError(
            f"{where}: transform_matrix mirrors the world (determinant -1): an axis is turned round; x is right, y up "
            "and z backward in the camera."
        )
    return pose


def read_keypoints(
    path: Path, meta: Dict[str, Any], wanted: Sequence[str], key: str = "keypoints3d"
) -> Float[Tensor, "k 3"]:
    """Keypoints by their names, in the order that was asked for.

    Args:
        path: The file.
        meta: All that it holds.
        wanted: Names.
        key: keypoints3d, positions in metres, or another list of three numbers each.

    Raises:
        InputError: Some are missing, or are no positions.
    """
    names, points = meta.get("keypoint_names"), meta.get(key)
    if not (names and points and isinstance(names, list) and isinstance(points, list)) or len(names) != len(points):
        raise InputError(f"{path} needs keypoint_names and as many {key}, three numbers each.")
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InputError(f"{path} lacks keypoints that the network was trained with: {', '.join(missing)}.")
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise InputError(
            f"{path}: keypoint_names says {twice[0]} {names.count(twice[0])} times; every name stands once."
        )
    rows = [_point(points[names.index(name)], f"{path}: {name} in {key}") for name in wanted]
    keypoints = torch.tensor(rows, dtype=torch.float32)
    extent = float((keypoints.amax(0) - keypoints.amin(0)).max())
    if key == "keypoints3d" and extent > MAX_EXTENT:
        raise InputError(f"{path}: the keypoints are {extent:.0f} apart; they and the cameras must be in metres.")
    return keypoints


def _point(value: Any, where: str) -> List[float]:
    numbers = value[:3] if isinstance(value, list) else []
    if len(numbers) < 3 or not all(type(x) in (int, float) and math.isfinite(x) for x in numbers):
        flat = isinstance(value, list) and len(value) == 2
        hint = ": a detector in the picture alone finds no depths, and these are needed" if flat else ""
        raise InputError(f"{where} is {json.dumps(value)}, but must be three finite numbers{hint}.")
    return numbers
