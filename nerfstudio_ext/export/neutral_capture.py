"""A capture of a person written in the suite's neutral layout."""

import json
import shutil
from pathlib import Path
from typing import Optional

import numpy as np

from nerfstudio_ext.engine.checkpoints import write_text
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import BodyMotion, write_body
from nerfstudio_ext.human.capture import CaptureLayout, picture_size
from nerfstudio_ext.human.neutral_layout import BODY, TRANSFORMS
from nerfstudio_ext.human.photo_frames import LENS

KEYPOINTS = "keypoints.npz"
"""2-D key points [cameras, frames, joints, 3] under kpts2d, as `ns-ext human fit --keypoints` reads them."""


def write_neutral(layout: CaptureLayout, folder: Path, motion: Optional[BodyMotion]) -> None:
    """Write `transforms.json` and copy pictures and masks as they are, with their lens distortion and resolution.

    Args:
        layout: The capture.
        folder: Created where it is missing.
        motion: The body in all frames of the capture, where it is known.

    Raises:
        InputError: A file of the capture is missing, or frames share a number.
    """
    numbers, count = layout.numbers, len(layout.numbers)
    if len(set(numbers)) < count:
        raise InputError(f"{layout.folder}: two frames have one number, so that their files cannot be told apart.")
    files = layout.files()
    masks = layout.masks() if layout.has_masks() else None
    names = [f"{camera:02d}" for camera in range(len(layout.cameras))]
    sizes = [picture_size(path) for path in files[0]]
    frames = []
    for row, number in enumerate(numbers):
        for column, (name, camera) in enumerate(zip(names, layout.cameras)):
            fx, fy, cx, cy = camera.intrinsics().tolist()
            entry = {
                "file_path": _copied(files[row][column], folder / "images" / name, number),
                "camera_id": name,
                "frame_index": number,
                "time": row / max(count - 1, 1),
                "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": sizes[column][0], "h": sizes[column][1],
                **dict(zip(LENS, camera.distortion.tolist())),
                "transform_matrix": [*camera.pose().tolist(), [0.0, 0.0, 0.0, 1.0]],
            }  # fmt: skip
            if masks is not None:
                entry["mask_path"] = _copied(masks[row][column], folder / "masks" / name, number)
            frames.append(entry)
    write_text(json.dumps({"camera_model": "OPENCV", "frames": frames}, indent=1), folder / TRANSFORMS)
    if layout.keypoints is not None:
        np.savez_compressed(folder / KEYPOINTS, kpts2d=layout.keypoints.transpose(1, 0, 2, 3))
    if motion is not None:
        write_body(motion, folder / BODY, frame_ids=np.asarray(numbers, dtype=np.int64))


def _copied(source: Path, folder: Path, number: int) -> str:
    """Path below the capture's folder of a picture that is copied there."""
    if not source.is_file():
        raise InputError(f"There is no {source}, which the capture names.")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{number:06d}{source.suffix.lower()}"
    shutil.copyfile(source, target)
    return "/".join(target.parts[-3:])
