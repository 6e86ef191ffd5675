"""One photograph of a person on disk, with mask and keypoints, framed as the networks saw people in training."""

from itertools import product
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.keypoint_encoding import keypoint_box
from nerfstudio_ext.human.masks import touched
from nerfstudio_ext.human.photo import SPAN, Photo
from nerfstudio_ext.human.photo_camera import PhotoCamera, frame_pictures, from_pinhole
from nerfstudio_ext.human.photo_checks import check_body
from nerfstudio_ext.human.photo_frames import read_frame, read_keypoints, read_transforms
from nerfstudio_ext.human.photo_pictures import read_cut_out

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""Which keypoint of the body set each one hangs from."""
BONES = 5.05
"""Metres that the bones between the 24 keypoints of an adult measure together, on average over the drawn people."""
DEPTH = 0.06
"""Least distance in depth of the nearest and the furthest keypoint, as a share of the longest side of all; a person's
are 0.32 m apart at least (86 drawn people from 24 sides each)."""
LENGTH_ERROR = 0.15
"""Metres by which the lengths of limbs may be wrong; keypoints that err by 3 cm along each axis pass (99.6 % of 240
draws), another order never does."""
KEYPOINT_SPAN = (0.6, 1.5)
"""Longest side of the keypoints over that of the mask, at least and at most; a whole body's is 0.78 to 0.98."""
LEAST_INSIDE = 0.8
"""Share of the keypoints that must be on the person, and in the picture."""
LEAST_IN_BOX = 0.7
"""Share of the mask that must lie in the box of the keypoints, in which alone a surface is looked for."""
LEAST_LEFT_OUT = 0.005
"""Share of the mask from which it is told that something was left out."""

Pixels = Float[np.ndarray, "k 2"]


def read_photo(
    photo: Path, keypoints: Path, mask: Optional[Path], names: Sequence[str], size: int
) -> Tuple[Photo, Tuple[str, ...]]:
    """A photograph as a batch of one, and what somebody should know about it: a sentence each.

    The file of keypoints is either a `transforms.json` with calibrated cameras and `keypoints3d`, in which the photo
    is named, or holds `keypoint_names` and as many `keypoints`: x and y in pixels, and how far each is behind the
    picture's plane in the same unit. Then the perspective is weak, the world's axes are right, away and up, and the
    person is taken to be an average adult. Of the mask those parts stay that a keypoint touches.

    Args:
        photo: Any picture; its transparency is its mask where no other one is given. Pixels are counted as it is
            shown, turned as the camera was held.
        keypoints: JSON.
        mask: White where the person is, or a cut-out with transparency; as large as the photo.
        names: Keypoints in the order that the network knows.
        size: Of the framed picture in pixels.

    Raises:
        InputError: Something is missing, does not belong together, or cannot be a body.
    """
    picture, person = read_cut_out(photo, mask)
    if not person.any():
        raise InputError(f"{mask or photo} shows no person: the mask is empty; it must be white where the person is.")
    found = read_transforms(keypoints, "keypoint_names and keypoints")
    if "frames" in found:
        camera, points = _calibrated(found, photo, keypoints, names, picture.size)
    else:
        camera, points = _uncalibrated(found, keypoints, names, *picture.size)
    pixels = _pixels(camera, points, picture.size, keypoints)
    check_body(points[0], names, str(keypoints), LENGTH_ERROR)
    notes = _cut_off(pixels, person, names, photo)
    own = touched(person, pixels)
    left = 1 - float(own.sum()) / float(person.sum())
    if left > LEAST_LEFT_OUT:
        notes.append(f"{left:.0%} of the mask of {photo.name} is left out, since no keypoint touches those parts.")
    _check(camera, points, pixels, own, photo, keypoints)
    return Photo(*_framed(picture, own, camera, size), points), tuple(notes)


def _framed(
    picture: Image.Image, person: Bool[np.ndarray, "height width"], camera: PhotoCamera, size: int
) -> Tuple[Tensor, Tensor, PhotoCamera]:
    """The person alone before it is framed: the surroundings of a large photo would take gigabytes."""
    (top, bottom), (left, right) = (np.flatnonzero(person.any(axis))[[0, -1]] + [0, 1] for axis in (1, 0))
    rgb = torch.from_numpy(np.array(picture.crop((left, top, right, bottom)).convert("RGB"))).permute(2, 0, 1)
    whole = torch.tensor([picture.width, picture.height]).float()
    middle = (torch.tensor([left + right, top + bottom]) - whole) / whole.max()
    half = torch.tensor([max(right - left, bottom - top)]) / whole.max()
    cut = torch.from_numpy(person[top:bottom, left:right])[None, None].float()
    return frame_pictures(rgb[None].float() / 255, cut, camera.window(middle[None], half[None]), size, SPAN)


def _calibrated(
    found: Dict[str, Any], photo: Path, path: Path, names: Sequence[str], size: Tuple[int, int]
) -> Tuple[PhotoCamera, Float[Tensor, "1 k 3"]]:
    listed = found["frames"] if isinstance(found["frames"], list) else []
    numbers = [
        number
        for number, entry in enumerate(listed)
        if isinstance(entry, dict)
        and isinstance(entry.get("file_path"), str)
        and (path.parent / entry["file_path"]).resolve() == photo.resolve()
    ]
    if len(numbers) != 1:
        raise InputError(f"{path} names {photo.name} {len(numbers)} times among its frames, and must once.")
    frame = read_frame(path, found, numbers[0], listed[numbers[0]], masked=False)
    frame.check_size(size)
    if frame.lens.any():
        raise InputError(f"{frame.where} has a distorted lens: undistort the photo first.")
    across, down = frame.matrix[0, 0], frame.matrix[1, 1]
    if abs(across / down - 1) > 0.01:
        raise InputError(f"{frame.where} has no square pixels (fl_x {across:g}, fl_y {down:g}): resize it first.")
    intrinsics = torch.tensor([[across, down, *frame.matrix[:2, 2]]], dtype=torch.float32)
    return from_pinhole(frame.pose[None], intrinsics, *size), read_keypoints(path, found, names)[None]


def _uncalibrated(
    found: Dict[str, Any], path: Path, names: Sequence[str], width: int, height: int
) -> Tuple[PhotoCamera, Float[Tensor, "1 k 3"]]:
    given = read_keypoints(path, found, names, "keypoints")
    pixels = given - torch.tensor([width / 2, height / 2, 0.0])
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


def _pixels(camera: PhotoCamera, points: Float[Tensor, "1 k 3"], size: Tuple[int, int], path: Path) -> Pixels:
    """Where keypoints are in the photo, by column and row; refuses those without depth."""
    local = camera.local(points)
    depths = local[0, :, 2]
    if bool(camera.perspective[0]) and float(depths.min()) <= 0:
        raise InputError(f"{path}: keypoints are behind the camera; poses are camera-to-world with OpenGL axes.")
    extent = local[0].amax(0) - local[0].amin(0)
    if float(extent[2]) < DEPTH * float(extent.max()):
        raise InputError(
            f"{path}: the keypoints' depths span {float(extent[2] / extent.max()):.1%} of their extent, hardly more "
            "than a detector in the picture alone finds; the network needs depths, as from a 3-D detector or a fitted "
            "body, and without calibration they count in pixels, like columns and rows."
        )
    return (camera.project(local)[0] * max(size) / 2 + torch.tensor(size) / 2).numpy()


def _cut_off(pixels: Pixels, person: Bool[np.ndarray, "h w"], names: Sequence[str], photo: Path) -> List[str]:
    """Says which keypoints the edge of the picture cuts off; refuses a photo that shows too little of the person."""
    edges = np.concatenate([person[0], person[-1], person[:, 0], person[:, -1]])
    if not edges.any():
        return []
    beyond = ((pixels < 0) | (pixels > person.shape[::-1])).any(1)
    lost = ", ".join(name for name, out in zip(names, beyond) if out)
    if 1 - beyond.mean() < LEAST_INSIDE:
        raise InputError(f"{photo.name} shows too little of the person, whose {lost} lie outside of it: take a photo "
                         "of the whole body.")  # fmt: skip
    if lost:
        return [f"{photo.name} cuts the person off ({lost} lie outside of it): the mesh ends where the photo does."]
    return [f"The mask touches the edge of {photo.name}: what lies beyond it is missing in the mesh."]


def _check(
    camera: PhotoCamera, points: Float[Tensor, "1 k 3"], pixels: Pixels, person: Bool[np.ndarray, "h w"], photo: Path,
    path: Path,
) -> None:  # fmt: skip
    """Refuse keypoints that are not where the person is, or of another size."""
    advice = "photo, mask and keypoints do not belong together, or their order or unit is another one."
    rows, columns = (np.flatnonzero(person.any(axis)) for axis in (1, 0))
    inside = np.zeros(len(pixels), bool)
    if len(rows):
        low, high = np.array([columns[0], rows[0]]), np.array([columns[-1] + 1, rows[-1] + 1])
        side = float((high - low).max())
        seen = ((pixels >= 0) & (pixels <= person.shape[::-1])).all(1)
        inside = ((pixels > low - 0.08 * side) & (pixels < high + 0.08 * side)).all(1)
    if inside.mean() < LEAST_INSIDE:
        raise InputError(
            f"{path}: only {inside.sum()} of {len(inside)} keypoints fall on the person in {photo.name}; {advice}"
        )
    span = float(np.ptp(pixels[seen], axis=0).max())
    if not KEYPOINT_SPAN[0] * side <= span <= KEYPOINT_SPAN[1] * side:
        raise InputError(
            f"{path}: the keypoints span {span:.0f} pixels, but the person in {photo.name} {side:.0f}; {advice}"
        )
    box = torch.tensor(list(product(*keypoint_box(points[0]).T.tolist())))[None]
    local = camera.local(box)
    if bool(camera.perspective[0]) and float(local[..., 2].min()) <= 0:
        return  # the camera stands in the box, which then fills the picture
    reach = (camera.project(local)[0] * max(person.shape) / 2).numpy() + np.array(person.shape[::-1]) / 2
    (left, top), (right, bottom) = (
        x.clip(0, person.shape[::-1]) for x in (np.floor(reach.min(0)), np.ceil(reach.max(0)))
    )
    found = person[int(top) : int(bottom), int(left) : int(right)].sum() / person.sum()
    if found < LEAST_IN_BOX:
        raise InputError(
            f"{path}: only {found:.0%} of the person in {photo.name} is near the keypoints; leave nobody else in the "
            "mask, and give the keypoints of this person."
        )
