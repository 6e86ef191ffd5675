"""One photograph of a person on disk, with mask and keypoints, framed as the networks saw people in training."""

import json
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.photo import SPAN, Photo
from nerfstudio_ext.human.photo_camera import PhotoCamera, frame_pictures, from_pinhole

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""Which keypoint of the body set each one hangs from."""
BONES = 5.05
"""Metres that the bones between the 24 keypoints of an adult measure together, on average over the drawn people."""
OTHER_PERSON = 0.25
"""A second part of the mask that is this share of the largest one is somebody else."""


def read_photo(photo: Path, keypoints: Path, mask: Optional[Path], names: Sequence[str], size: int) -> Photo:
    """A photograph as a batch of one.

    The file of keypoints is either a `transforms.json` with calibrated cameras and `keypoints3d`, in which the photo
    is named, or holds `keypoint_names` and as many `keypoints`: x and y in pixels, and how far each is behind the
    picture's plane in the same unit. Then the perspective is weak, the world's axes are right, away and up, and the
    person is taken to be an average adult.

    Args:
        photo: Any picture; its transparency is its mask where no other one is given.
        keypoints: JSON.
        mask: White where the person is, as large as the photo.
        names: Keypoints in the order that the network knows.
        size: Of the framed picture in pixels.

    Raises:
        InputError: Something is missing, or does not belong together.
    """
    rgb, person = _read_pictures(photo, mask)
    found = _read_json(keypoints)
    height, width = person.shape
    if "frames" in found:
        camera, points = _calibrated(found, photo, keypoints, names, width, height)
    else:
        camera, points = _uncalibrated(found, keypoints, names, width, height)
    _check(camera, points, person, photo, keypoints)
    pictures = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    whole = torch.from_numpy(person)[None, None].float()
    return Photo(*frame_pictures(pictures, whole, camera, size, SPAN), points)


def _read_pictures(
    photo: Path, mask: Optional[Path]
) -> Tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    pictures = []
    for path in (photo, mask):
        if path is None:
            continue
        try:
            pictures.append(Image.open(path).convert("RGBA"))
        except FileNotFoundError:
            raise InputError(f"There is no {path}.") from None
        except (UnidentifiedImageError, OSError) as error:
            raise InputError(f"{path} is no picture that can be read: {error}.") from error
    rgba = np.asarray(pictures[0])
    if mask is not None:
        if pictures[1].size != pictures[0].size:
            raise InputError(f"{photo} is {pictures[0].size}, but its mask {mask} {pictures[1].size}: make them alike.")
        person = np.asarray(pictures[1].convert("L")) > 127
    else:
        person = rgba[..., 3] > 127
        if person.all():
            raise InputError(f"{photo} does not say where the person is: give --mask, or cut it out (transparency).")
    return rgba[..., :3].copy(), _only_person(person, mask or photo)


def _only_person(person: Bool[np.ndarray, "height width"], path: Path) -> Bool[np.ndarray, "height width"]:
    """The largest part of a mask.

    Raises:
        InputError: It is empty, or there are two people.
    """
    from skimage.measure import label

    parts = np.asarray(label(person, connectivity=2))
    count = int(parts.max())
    if count == 0:
        raise InputError(f"{path} shows no person: the mask is empty; it must be white where the person is.")
    areas = np.sort(np.bincount(parts.flat)[1:])[::-1]
    if count > 1 and areas[1] > OTHER_PERSON * areas[0]:
        raise InputError(f"{path} shows more than one person, {count} parts in all: leave one in the mask.")
    return parts == 1 + np.bincount(parts.flat)[1:].argmax()


def _read_json(path: Path) -> Dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no object with keypoint_names and keypoints.")
    return found


def _in_order(found: Dict[str, Any], key: str, path: Path, names: Sequence[str]) -> Float[Tensor, "k 3"]:
    own, rows = found.get("keypoint_names"), found.get(key)
    if not own or not rows or len(own) != len(rows):
        raise InputError(f"{path} needs keypoint_names and as many {key}, three numbers each.")
    missing = [name for name in names if name not in own]
    if missing:
        raise InputError(f"{path} lacks keypoints that the network knows: {', '.join(missing)}.")
    try:
        points = torch.tensor([rows[own.index(name)][:3] for name in names], dtype=torch.float32)
    except (TypeError, ValueError):
        points = torch.empty(0)
    if points.shape != (len(names), 3) or not bool(torch.isfinite(points).all()):
        raise InputError(f"{path}: {key} are three finite numbers each; the third is the depth.")
    return points


def _calibrated(
    found: Dict[str, Any], photo: Path, path: Path, names: Sequence[str], width: int, height: int
) -> Tuple[PhotoCamera, Float[Tensor, "1 k 3"]]:
    frames = [f for f in found["frames"] if (path.parent / f.get("file_path", "")).resolve() == photo.resolve()]
    if len(frames) != 1:
        raise InputError(f"{path} names {photo.name} {len(frames)} times among its frames, and must once.")
    values = {**found, **frames[0]}
    lacking = [key for key in ("fl_x", "cx", "cy", "transform_matrix") if key not in values]
    if lacking:
        raise InputError(f"{path}: {photo.name} is not calibrated: it has no {', '.join(lacking)}.")
    if any(values.get(key) for key in ("k1", "k2", "k3", "p1", "p2")):
        raise InputError(f"{path}: {photo.name} has a distorted lens: undistort the photo first.")
    focal = values.get("fl_y", values["fl_x"])
    intrinsics = torch.tensor([[values["fl_x"], focal, values["cx"], values["cy"]]], dtype=torch.float32)
    pose = torch.tensor(values["transform_matrix"], dtype=torch.float32)[None, :3]
    return from_pinhole(pose, intrinsics, width, height), _in_order(found, "keypoints3d", path, names)[None]


def _uncalibrated(
    found: Dict[str, Any], path: Path, names: Sequence[str], width: int, height: int
) -> Tuple[PhotoCamera, Float[Tensor, "1 k 3"]]:
    pixels = _in_order(found, "keypoints", path, names) - torch.tensor([width / 2, height / 2, 0.0])
    bones = pixels[1:] - pixels[list(PARENTS[1:])]
    length = float(bones.norm(dim=-1).sum())
    if length < 1:
        raise InputError(f"{path}: all keypoints are in one place; they are in pixels.")
    metres = BONES / length
    local = pixels * metres
    local[:, 2] -= local[:, 2].mean()
    # World axes: right, away, up.
    rotation = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    motion = torch.cat([rotation, torch.zeros(3, 1)], dim=1)[None]
    focal = torch.tensor([[2 / (metres * max(width, height))]])
    camera = PhotoCamera(motion, focal, torch.zeros(1, 2), torch.zeros(1, 1, dtype=torch.bool))
    return camera, (local @ rotation)[None]


def _check(camera: PhotoCamera, points: Float[Tensor, "1 k 3"], person: np.ndarray, photo: Path, path: Path) -> None:
    """Refuse keypoints that are not where the person is."""
    local = camera.local(points)
    if bool(camera.perspective[0]) and float(local[..., 2].min()) <= 0:
        raise InputError(f"{path}: keypoints are behind the camera; poses are camera-to-world with OpenGL axes.")
    if float((points.amax(1) - points.amin(1)).max()) > 4:
        raise InputError(f"{path}: the keypoints are more than 4 m apart; they and the cameras must be in metres.")
    height, width = person.shape
    x, y = (camera.project(local)[0] * max(width, height) / 2).unbind(-1)
    x, y = x + width / 2, y + height / 2
    rows, columns = np.nonzero(person)
    slack = 0.08 * max(np.ptp(rows), np.ptp(columns))
    inside = (x > columns.min() - slack) & (x < columns.max() + slack) & (y > rows.min() - slack)
    inside &= y < rows.max() + slack
    if float(inside.float().mean()) < 0.8:
        raise InputError(
            f"{path}: only {int(inside.sum())} of {len(inside)} keypoints fall on the person in {photo.name}; photo, "
            "mask and keypoints do not belong together, or their order or unit is another one."
        )
