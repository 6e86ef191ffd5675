"""Several people in the layout of ZJU-MoCap, read one moment at a time, with the joints of `joints3d/` as keypoints."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import MAX_EXTENT
from nerfstudio_ext.human.capture import CapturedScene, CaptureLayout
from nerfstudio_ext.human.subject import Subject, SubjectStore
from nerfstudio_ext.human.zju_layout import read_plain

KEPT = 4
"""Moments whose pictures stay in memory; one of 23 cameras at 512x512 takes 24 MB."""
BODY_ROOM = 0.05
"""Metres around a body's vertices in which papers on ZJU-MoCap score pictures."""


@dataclass(frozen=True)
class Moment:
    """A person in one frame."""

    folder: Path
    """Of the person: the one that holds annots.npy."""
    frame: int
    """Position in annots.npy."""


class ZjuPeople(SubjectStore):
    """Moments of several people; number k of the store is the k-th of them.

    Args:
        layouts: Of the people's folders.
        moments: Of all people.
        size: Pictures are shrunk until neither side has more pixels.
        keypoint_names: Of the rows of joints3d/.

    Raises:
        InputError: A frame or the joints of a frame are missing, or the cameras of a person differ in the size of
            their pictures.
    """

    def __init__(
        self, layouts: Mapping[Path, CaptureLayout], moments: Sequence[Moment], size: int, keypoint_names: Sequence[str]
    ) -> None:
        self.keypoint_names, self._moments, self._size = tuple(keypoint_names), list(moments), size
        self._layouts = layouts
        # Joints are small and are asked for at once, so that what is missing is said before training starts.
        self._joints = [self._read_joints(moment) for moment in moments]
        self._cameras = {folder: self._scene(Moment(folder, 0)) for folder in self._layouts}
        self._read = lru_cache(KEPT)(self._read_subject)

    def __len__(self) -> int:
        return len(self._moments)

    def name(self, index: int) -> str:
        moment = self._moments[index]
        return f"{moment.folder.name}_{self._layouts[moment.folder].numbers[moment.frame]:06d}"

    def cameras(self, index: int) -> Cameras:
        scene = self._cameras[self._moments[index].folder]
        fx, fy, cx, cy = scene.intrinsics().unbind(1)
        return Cameras(scene.poses(), fx, fy, cx, cy, *scene.sizes[0], camera_type=CameraType.PERSPECTIVE)

    def subject(self, index: int) -> Subject:
        return self._read(index)

    def scored_box(self, index: int) -> Float[Tensor, "2 3"]:
        """The box around the fitted body's vertices (`vertices/`, or else `new_vertices/`) and 5 cm of room, as papers
        on ZJU-MoCap have it; that of the joints where there are no vertices."""
        moment = self._moments[index]
        number = self._layouts[moment.folder].numbers[moment.frame]
        paths = [moment.folder / name / f"{number}.npy" for name in ("vertices", "new_vertices")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return super().scored_box(index)
        vertices = np.asarray(read_plain(path), dtype=np.float32)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
            raise InputError(
                f"{path} holds {list(vertices.shape)} numbers: it must be [vertices, 3], finite, in metres."
            )
        return torch.from_numpy(np.stack([vertices.min(0) - BODY_ROOM, vertices.max(0) + BODY_ROOM]))

    def _scene(self, moment: Moment) -> CapturedScene:
        """The moment as the only frame of a capture."""
        layout = self._layouts[moment.folder]
        files, masks = layout.files()[moment.frame], layout.masks()[moment.frame]
        scene = CapturedScene(layout.cameras, [files], [masks], self._size)
        if len(set(scene.sizes)) > 1:
            raise InputError(f"The cameras of {moment.folder} differ in the size of their pictures: keypoint-nerf "
                             "trains on pictures of one size.")  # fmt: skip
        return scene

    def _read_joints(self, moment: Moment) -> Float[Tensor, "k 3"]:
        layout = self._layouts[moment.folder]
        if not 0 <= moment.frame < len(layout.numbers):
            raise InputError(
                f"{moment.folder} has {len(layout.numbers)} frames, and number {moment.frame} is asked for."
            )
        path = moment.folder / "joints3d" / f"{layout.numbers[moment.frame]}.npy"
        points = np.asarray(read_plain(path), dtype=np.float32)
        wanted = (len(self.keypoint_names), 3)
        if points.shape != wanted or not np.isfinite(points).all():
            raise InputError(
                f"{path} holds {list(points.shape)} numbers: it must be {list(wanted)}, finite, in metres."
            )
        if np.ptp(points, axis=0).max() > MAX_EXTENT:
            raise InputError(f"{path}: the joints are {np.ptp(points, axis=0).max():.0f} apart, not in metres.")
        return torch.from_numpy(points)

    def _read_subject(self, index: int) -> Subject:
        return self._scene(self._moments[index]).subject(0, self.name(index), self._joints[index])
