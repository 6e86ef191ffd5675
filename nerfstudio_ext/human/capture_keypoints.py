"""The 2-D key points of a capture, in the undistorted pixels of its cameras, one row per frame of the capture."""

from pathlib import Path
from typing import Optional, Sequence

import cv2
import numpy as np

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.capture import CaptureCamera, CaptureLayout
from nerfstudio_ext.human.keypoints import Keypoints2D, named, read_keypoints, read_photo_keypoints


def capture_keypoints(
    layout: CaptureLayout, path: Optional[Path], skeleton: Optional[str], scale: float, begin: int, step: int
) -> Keypoints2D:
    """Key points of every frame of a capture.

    Where the capture is one moment whose pictures have names of their own, a folder of .json files has one for each,
    called like it; otherwise see `read_keypoints`.

    Args:
        layout: The capture.
        path: Where they are; none: in annots.npy.
        skeleton: Order of the joints.
        scale: From their pixels to the capture's.
        begin: Their frame at the capture's first one.
        step: Their frames from one of the capture to the next.

    Raises:
        InputError: There are none, or their cameras or frames do not fit the capture's.
    """
    if path is not None:
        place, photos = path.expanduser(), layout.pictures[0]
        of_photos = len(layout.pictures) == 1 and len({Path(photo).stem for photo in photos}) == len(photos)
        if of_photos and any(place.glob("*.json")):
            found = read_photo_keypoints(place, photos, skeleton).scaled(scale)
        else:
            found = read_keypoints(place, skeleton).scaled(scale)
    elif layout.keypoints is not None:
        found = named(layout.keypoints, skeleton, str(layout.folder / "annots.npy")).scaled(scale)
    else:
        raise InputError(f"The capture {layout.folder} holds no kpts2d: name the key points with --keypoints.")
    source = path or layout.folder / "annots.npy"
    if found.values.shape[1] != len(layout.cameras):
        raise InputError(f"{source} has key points of {found.values.shape[1]} cameras, but the capture has "
                         f"{len(layout.cameras)}.")  # fmt: skip
    chosen = [begin + step * k for k in range(len(layout.pictures))]
    if chosen[0] < 0 or chosen[-1] >= len(found.values) or step < 1:
        raise InputError(
            f"{source} has {len(found.values)} frames, and --keypoint-begin {begin} --keypoint-step {step} asks for "
            f"frame {chosen[-1]}, for the capture has {len(chosen)} frames."
        )
    return undistorted(Keypoints2D(found.values[chosen], found.names), layout.cameras, str(source))


def undistorted(keypoints: Keypoints2D, cameras: Sequence[CaptureCamera], where: str) -> Keypoints2D:
    """Key points where they would be in the undistorted pictures of their cameras.

    Raises:
        InputError: A distortion is so strong that some would be nowhere.
    """
    values = keypoints.values.copy()
    for k, camera in enumerate(cameras):
        if camera.distortion.any():
            flat = values[:, k, :, :2].reshape(-1, 1, 2)
            plain = cv2.undistortPoints(flat, camera.calibration, camera.distortion, P=camera.calibration)
            values[:, k, :, :2] = plain.reshape(values.shape[0], -1, 2)
    if not np.isfinite(values).all():
        raise InputError(f"{where} has key points that no undistorted picture can hold: the distortion is too strong.")
    return Keypoints2D(values, keypoints.names)
