"""Calibrated photographs of one person on disk, framed as the networks saw people in training.

A folder holds `transforms.json` as nerfstudio writes it (intrinsics, a `transform_matrix` for each photo: camera to
world, OpenGL axes, metres) with a `mask_path` for each frame, and two entries more: `keypoint_names` and `keypoints3d`,
world positions in the same order.
"""

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from PIL import Image
from torch import Tensor

from nerfstudio_ext.engine.checkpoints import write_text
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.subject import Subject, SubjectStore

SPAN = 0.8
"""Share of the framed picture's side that the person takes."""
MAX_EXTENT = 4.0
"""Metres between keypoints; more means other units."""


class PhotoStore(SubjectStore):
    """One person in photographs, cut to a square around the mask and resized.

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
        self._meta = read_transforms(self._path, "cameras, masks and keypoints")
        frames = self._meta.get("frames", [])
        if len(frames) < 2:
            raise InputError(f"{self._path} names {len(frames)} photo: a person is reconstructed from two at least.")
        self._keypoints = self._read_keypoints()
        self._read = lru_cache(1)(self._read_subject)
        self.subject(0)  # what is wrong is said at once, not when the first picture is asked for

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return self.folder.resolve().name

    def version(self, index: int) -> Tuple[Any, ...]:
        files = [self._path, *(path for pair in self._files() for path in pair)]
        return tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in files if path.is_file())

    def cameras(self, index: int) -> Cameras:
        subject = self.subject(index)
        fx, fy, cx, cy = subject.intrinsics.unbind(1)
        return Cameras(subject.poses, fx, fy, cx, cy, self.size, self.size, camera_type=CameraType.PERSPECTIVE)

    def subject(self, index: int) -> Subject:
        return self._read(self.version(index))

    def _files(self) -> List[Tuple[Path, Path]]:
        """Photo and mask of each frame."""
        pairs = []
        for frame in self._meta["frames"]:
            if "mask_path" not in frame:
                raise InputError(f"{self._path}: frame {frame.get('file_path')} has no mask_path; cut the person out.")
            pairs.append((self.folder / frame["file_path"], self.folder / frame["mask_path"]))
        return pairs

    def _read_keypoints(self) -> Float[Tensor, "k 3"]:
        names, points = self._meta.get("keypoint_names"), self._meta.get("keypoints3d")
        if not names or not points or len(names) != len(points):
            raise InputError(f"{self._path} needs keypoint_names and as many keypoints3d: world positions in metres.")
        missing = [name for name in self.keypoint_names if name not in names]
        if missing:
            raise InputError(f"{self._path} lacks keypoints that the network was trained with: {', '.join(missing)}.")
        rows = [points[names.index(name)][:3] for name in self.keypoint_names]
        keypoints = torch.tensor(rows, dtype=torch.float32)
        if keypoints.shape != (len(rows), 3) or not bool(torch.isfinite(keypoints).all()):
            raise InputError(f"{self._path}: keypoints3d are three finite numbers each.")
        extent = float((keypoints.amax(0) - keypoints.amin(0)).max())
        if extent > MAX_EXTENT:
            raise InputError(
                f"{self._path}: the keypoints are {extent:.0f} apart; they and the cameras must be in metres."
            )
        return keypoints

    def _read_subject(self, version: Tuple[Any, ...]) -> Subject:
        parts = [self._read_view(frame, *files) for frame, files in zip(self._meta["frames"], self._files())]
        rgb, mask, poses, intrinsics = (torch.stack(values) for values in zip(*parts))
        return Subject(self.name(0), rgb, mask, poses, intrinsics, self._keypoints)

    def _read_view(self, frame: Dict[str, Any], photo: Path, mask_path: Path) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        where = f"{self._path}: {frame.get('file_path')}"
        matrix, pose = self._calibration(frame, where)
        for path in (photo, mask_path):
            if not path.is_file():
                raise InputError(f"{where}: there is no {path}.")
        rgb = np.asarray(Image.open(photo).convert("RGB"))
        mask = np.asarray(Image.open(mask_path).convert("L")) > 127
        if rgb.shape[:2] != mask.shape:
            raise InputError(f"{where} is {rgb.shape[1]}x{rgb.shape[0]}, but its mask {mask.shape[1]}x{mask.shape[0]}.")
        rgb, mask = self._undistorted(frame, matrix, rgb, mask)
        if not mask.any():
            raise InputError(f"{where}: the mask {mask_path.name} is empty; it must be white where the person is.")
        self._check_view(matrix, pose, mask, where)
        return self._framed(rgb, mask, matrix, pose)

    def _calibration(self, frame: Dict[str, Any], where: str) -> Tuple[np.ndarray, Tensor]:
        """Intrinsic matrix and camera-to-world pose."""
        values = {**self._meta, **frame}
        lacking = [key for key in ("fl_x", "cx", "cy", "transform_matrix") if key not in values]
        if lacking:
            raise InputError(f"{where} is not calibrated: it has no {', '.join(lacking)}.")
        fx, fy = values["fl_x"], values.get("fl_y", values["fl_x"])
        matrix = np.array([[fx, 0, values["cx"]], [0, fy, values["cy"]], [0, 0, 1]], dtype=np.float64)
        return matrix, torch.tensor(values["transform_matrix"], dtype=torch.float32)[:3]

    def _undistorted(
        self, frame: Dict[str, Any], matrix: np.ndarray, rgb: np.ndarray, mask: np.ndarray
    ) -> Tuple[np.ndarray, np.ndarray]:
        values = {**self._meta, **frame}
        lens = np.array([values.get(key, 0.0) for key in ("k1", "k2", "p1", "p2", "k3")], dtype=np.float64)
        if not lens.any():
            return rgb, mask
        import cv2

        # OpenCV's pixel centres are at integers, ours half a pixel further.
        shifted = matrix - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
        return cv2.undistort(rgb, shifted, lens), cv2.undistort(mask.astype(np.uint8), shifted, lens) > 0

    def _check_view(self, matrix: np.ndarray, pose: Tensor, mask: np.ndarray, where: str) -> None:
        """Refuse a camera that does not see the keypoints, or sees them where nobody is."""
        local = (self._keypoints - pose[:, 3]) @ pose[:, :3]
        if float(local[:, 2].max()) >= 0:
            raise InputError(f"{where}: keypoints are behind the camera; poses are camera-to-world with OpenGL axes.")
        pixels = (local.numpy() * [1, -1, -1]) @ matrix.T
        column, row = (pixels[:, :2] / pixels[:, 2:]).T
        rows, columns = np.nonzero(mask)
        slack = 0.1 * max(np.ptp(rows), np.ptp(columns))
        inside = (np.abs(row - np.clip(row, rows.min(), rows.max())) < slack) & (
            np.abs(column - np.clip(column, columns.min(), columns.max())) < slack
        )
        if inside.mean() < 0.7:
            raise InputError(
                f"{where}: only {inside.sum()} of {len(inside)} keypoints fall on the person; calibration, keypoints "
                "and mask do not belong together."
            )

    def _framed(
        self, rgb: np.ndarray, mask: np.ndarray, matrix: np.ndarray, pose: Tensor
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
        scale = self.size / side
        fx, fy, cx, cy = matrix[0, 0], matrix[1, 1], matrix[0, 2] - left, matrix[1, 2] - top
        intrinsics = torch.tensor([fx, fy, cx, cy], dtype=torch.float32) * scale
        return colour.round().to(torch.uint8), inside, pose, intrinsics


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
