"""Calibrated photographs of one person on disk, framed as the networks saw people in training.

A folder holds `transforms.json` as nerfstudio writes it (intrinsics, a `transform_matrix` for each photo: camera to
world, OpenGL axes, metres) with a `mask_path` for each frame, and two entries more: `keypoint_names` and `keypoints3d`,
world positions in the same order.
"""

import hashlib
import json
import math
from functools import lru_cache
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from nerfstudio.cameras.cameras import Cameras, CameraType
from PIL import Image
from torch import Tensor

from nerfstudio_ext.engine.checkpoints import write_text
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.photo_checks import check_body, check_view
from nerfstudio_ext.human.photo_frames import PhotoFolder, PhotoFrame, read_folder
from nerfstudio_ext.human.subject import Subject, SubjectStore

SPAN = 0.8
"""Share of the framed picture's side that the person takes."""

Stamp = Tuple[Tuple[int, int], ...]
"""Time of change and size of some files."""


class PhotoStore(SubjectStore):
    """One person in photographs, cut to a square around the mask and resized. Files that change are read again, all of
    them, but the number of photos stays.

    Args:
        folder: Holds `transforms.json`.
        size: Pixels along a side of the framed pictures.
        keypoint_names: The set and order that the network was trained with.

    Raises:
        InputError: The folder cannot be a person: too few photos, no calibration, masks or keypoints, wrong units, or
            a camera that does not see the person. The message says which, and where.
    """

    def __init__(self, folder: Path, size: int, keypoint_names: Sequence[str]) -> None:
        self.folder, self.size, self.keypoint_names = folder, size, tuple(keypoint_names)
        self._path = folder / "transforms.json"
        self._found: Optional[Tuple[Stamp, str, PhotoFolder]] = None  # when last looked, of which content, what it says
        self._read = lru_cache(1)(self._read_subject)
        self._count = len(
            self.subject(0).poses
        )  # what is wrong is said at once, not when the first picture is asked for

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return self.folder.resolve().name

    def version(self, index: int) -> Tuple[str]:
        """Hash of the bytes of all files, which are read again only where a file's time or size has changed.

        Raises:
            InputError: The files have changed, and are no person any more.
        """
        return (self._current(),)

    def cameras(self, index: int) -> Cameras:
        subject = self.subject(index)
        fx, fy, cx, cy = subject.intrinsics.unbind(1)
        return Cameras(subject.poses, fx, fy, cx, cy, self.size, self.size, camera_type=CameraType.PERSPECTIVE)

    def subject(self, index: int) -> Subject:
        return self._read(self._current())

    def _current(self) -> str:
        """Hash of all files; where one has changed, `transforms.json` is read again."""
        if self._found is None or self._found[0] != _stamp(self._files(self._found[2])):
            found = read_folder(self._path, self.keypoint_names)
            if self._found is not None and len(found.frames) != self._count:
                raise InputError(
                    f"{self._path} names {len(found.frames)} photos now, and named {self._count} when it was opened: "
                    "make a new run of it."
                )
            check_body(found.keypoints, self.keypoint_names, str(self._path))
            files = self._files(found)
            # Taken before the bytes are read: what changes meanwhile is noticed the next time.
            stamp, digest = _stamp(files), hashlib.sha256()
            for path in files:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            self._found = (stamp, digest.hexdigest(), found)
        return self._found[1]

    def _files(self, found: PhotoFolder) -> List[Path]:
        for frame in found.frames:
            for path in (frame.photo, frame.mask):
                if not path.is_file():
                    raise InputError(f"{frame.where}: there is no {path}.")
        return [self._path, *(path for frame in found.frames for path in (frame.photo, frame.mask))]

    def _read_subject(self, digest: str) -> Subject:
        assert self._found is not None and self._found[1] == digest
        found = self._found[2]
        parts = [self._read_view(frame, found.keypoints) for frame in found.frames]
        rgb, mask, poses, intrinsics = (torch.stack(values) for values in zip(*parts))
        return Subject(self.name(0), rgb, mask, poses, intrinsics, found.keypoints)

    def _read_view(self, frame: PhotoFrame, keypoints: Float[Tensor, "k 3"]) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        rgb = _picture(frame.photo, "RGB", frame.where)
        mask = _picture(frame.mask, "L", frame.where) > 127
        if rgb.shape[:2] != mask.shape:
            raise InputError(
                f"{frame.where} is {rgb.shape[1]}x{rgb.shape[0]}, but its mask {mask.shape[1]}x{mask.shape[0]}."
            )
        frame.check_size((rgb.shape[1], rgb.shape[0]))
        if frame.lens.any():
            # OpenCV's pixel centres are at integers, ours half a pixel further.
            shifted = frame.matrix - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
            rgb = cv2.undistort(rgb, shifted, frame.lens)
            mask = cv2.undistort(mask.astype(np.uint8), shifted, frame.lens) > 0
        if not mask.any():
            raise InputError(
                f"{frame.where}: the mask {frame.mask.name} is empty; it must be white where the person is."
            )
        check_view(keypoints, self.keypoint_names, frame, mask)
        return self._framed(rgb, mask, frame)

    def _framed(
        self, rgb: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], frame: PhotoFrame
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """A square around the person, black beside it, with the intrinsics that belong to it."""
        rows, columns = np.nonzero(mask)
        side = math.ceil(max(np.ptp(rows), np.ptp(columns)) / SPAN) + 1
        top, left = (round((values.min() + values.max() + 1 - side) / 2) for values in (rows, columns))
        cut = np.zeros((side, side, 4), np.float32)
        source = tuple(slice(max(start, 0), min(start + side, n)) for start, n in zip((top, left), mask.shape))
        place = tuple(slice(s.start - start, s.stop - start) for s, start in zip(source, (top, left)))
        cut[place] = np.concatenate([rgb, 255 * np.ones_like(rgb[..., :1])], axis=-1)[source] * mask[source][..., None]
        # Averaged with the mask as weight, so that no black comes in from beside the person.
        channels = torch.from_numpy(cut).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(channels, (self.size, self.size), mode="area")[0].permute(1, 2, 0)
        inside = resized[..., 3] > 127
        colour = resized[..., :3] / resized[..., 3:].clamp(min=1) * 255 * inside[..., None]
        scale, matrix = self.size / side, frame.matrix
        fx, fy, cx, cy = matrix[0, 0], matrix[1, 1], matrix[0, 2] - left, matrix[1, 2] - top
        intrinsics = torch.tensor([fx, fy, cx, cy], dtype=torch.float32) * scale
        return colour.round().to(torch.uint8), inside, frame.pose, intrinsics


def write_photos(subject: Subject, views: Sequence[int], keypoint_names: Sequence[str], folder: Path) -> None:
    """Write views of a person in the layout that `PhotoStore` reads."""
    frames = []
    for view in views:
        names = {kind: f"{kind}/{view:02d}.png" for kind in ("images", "masks")}
        pictures = {"images": subject.rgb[view].numpy(), "masks": subject.mask[view].numpy().astype(np.uint8) * 255}
        for kind, name in names.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures[kind]).save(folder / name)
        fx, fy, cx, cy = subject.intrinsics[view].tolist()
        pose = [*subject.poses[view].tolist(), [0.0, 0.0, 0.0, 1.0]]
        frames.append(
            {"file_path": names["images"], "mask_path": names["masks"], "transform_matrix": pose,
             "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}
        )  # fmt: skip
    height, width = subject.mask.shape[1:]
    text = json.dumps(
        {"w": width, "h": height, "keypoint_names": list(keypoint_names),
         "keypoints3d": subject.keypoints.tolist(), "frames": frames}, indent=1
    )  # fmt: skip
    write_text(text, folder / "transforms.json")


def _picture(path: Path, mode: str, where: str) -> UInt8[np.ndarray, "..."]:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert(mode))
    except (OSError, SyntaxError, ValueError) as error:  # PIL knows several kinds of broken files
        raise InputError(f"{where}: {path} is no picture that can be read ({error}): it may be half copied.") from error


def _stamp(files: Sequence[Path]) -> Stamp:
    return tuple((found.st_mtime_ns, found.st_size) for found in (path.stat() for path in files))
