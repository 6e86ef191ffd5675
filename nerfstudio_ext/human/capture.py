"""A body in front of calibrated cameras: where points fall in the pictures, and pictures as files hold them.

Calibrations are OpenCV's: x_camera = R x_world + T, metres, pixel centres at integers.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.subject import Subject

KEPT_BYTES = 2 * 1024**3
"""Memory for the views of a capture that have been read; at 512x512, 2,048 of them."""
MASK_FOLDERS = ("mask_cihp", "mask")

Size = Tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class CaptureCamera:
    """One calibrated camera."""

    calibration: Float[np.ndarray, "3 3"]
    distortion: Float[np.ndarray, "5"]
    """k1, k2, p1, p2, k3."""
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    size: Optional[Size] = None
    """Of the pictures that it was made for, where its file says so."""

    def local(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """World points in the camera's axes: right, down, forward."""
        return points @ self.rotation.T + self.translation

    def project(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 2"]:
        """Pixels of world points in the undistorted picture; not a number for those that are not in front."""
        local = self.local(points)
        depth = np.where(local[..., 2:] > 1e-6, local[..., 2:], np.nan)
        return (local @ self.calibration.T)[..., :2] / depth

    def projection(self) -> Float[np.ndarray, "3 4"]:
        """K [R|T]."""
        return self.calibration @ np.concatenate([self.rotation, self.translation[:, None]], axis=1)

    def centre(self) -> Float[np.ndarray, "3"]:
        """Where the camera stands."""
        return -self.rotation.T @ self.translation

    def pose(self) -> Float[np.ndarray, "3 4"]:
        """Camera to world, OpenGL axes."""
        return np.concatenate([self.rotation.T * [1.0, -1.0, -1.0], self.centre()[:, None]], axis=1)

    def intrinsics(self) -> Float[np.ndarray, "4"]:
        """fx, fy, cx, cy; OpenCV's pixel centres are at integers, nerfstudio's half a pixel further."""
        return self.calibration[[0, 1, 0, 1], [0, 1, 2, 2]] + [0, 0, 0.5, 0.5]

    def require_fitting(self, where: str, size: Size, remedy: str) -> None:
        """Refuse a calibration that says, or plainly shows, that it was made for pictures of another size.

        Args:
            where: Whose calibration it is, for the message.
            size: Of the pictures.
            remedy: What to do then.

        Raises:
            InputError: It is for another size, or its principal point is not in the middle half of the picture.
        """
        if self.size is not None and self.size != size:
            raise InputError(
                f"The calibration of {where} was made for {self.size[0]}x{self.size[1]} pictures, and these are "
                f"{size[0]}x{size[1]}: {remedy}."
            )
        centre = self.calibration[:2, 2]
        if not all(0.25 < c / s < 0.75 for c, s in zip(centre, size)):
            raise InputError(
                f"The calibration of {where} has its centre at {centre[0]:.0f}, {centre[1]:.0f}, which is not near the "
                f"middle of {size[0]}x{size[1]} pictures: {remedy}."
            )

    def resized(self, old: Size, new: Size) -> "CaptureCamera":
        """The camera of the same picture in another size; the corners of the picture stay where they are."""
        ratio = np.array([new[0] / old[0], new[1] / old[1], 1.0])
        calibration = self.calibration * ratio[:, None]
        calibration[:2, 2] += 0.5 * ratio[:2] - 0.5
        return CaptureCamera(calibration, self.distortion, self.rotation, self.translation, new)


@dataclass(frozen=True)
class HumanView:
    """One picture of a person."""

    rgb: UInt8[np.ndarray, "height width 3"]
    """Black beside the person."""
    mask: Bool[np.ndarray, "height width"]
    depth: Optional[Float[np.ndarray, "height width"]] = None
    """Along the unit ray in metres, 0 beside the person; none where it is not known."""


@dataclass(frozen=True)
class CaptureLayout:
    """What a folder says of its pictures and cameras, whichever layout it has; lists over frames and cameras in its
    order."""

    folder: Path
    cameras: List[CaptureCamera]
    pictures: List[List[str]]
    """Paths, from the folder on."""
    numbers: List[int]
    """Of the body files of each frame."""
    keypoints: Optional[Float[np.ndarray, "frames cameras points 3"]]
    """Pixel and confidence of 2-D key points, where the file has them."""
    mask_names: Optional[List[List[str]]] = None
    """Paths, from the folder on, where the file names them; none: they lie in a folder of masks, if anywhere."""
    body: Optional[Path] = None
    """A `body.npz` that comes with the capture."""

    def has_masks(self) -> bool:
        """Whether masks are named, or there is a folder of them."""
        return self.mask_names is not None or any((self.folder / name).is_dir() for name in MASK_FOLDERS)

    def masks(self) -> List[List[Path]]:
        """The mask of every picture.

        Raises:
            InputError: None are named, and there is no folder of masks.
        """
        if self.mask_names is not None:
            return [[self.folder / path for path in row] for row in self.mask_names]
        for name in MASK_FOLDERS:
            if (self.folder / name).is_dir():
                root = self.folder / name
                return [[(root / path).with_suffix(".png") for path in row] for row in self.pictures]
        raise InputError(
            f"{self.folder} names no mask_path and has neither {' nor '.join(MASK_FOLDERS)}: the method needs a mask "
            "per picture."
        )

    def files(self) -> List[List[Path]]:
        """The file of every picture."""
        return [[self.folder / path for path in row] for row in self.pictures]


class CapturedScene:
    """Pictures and masks in files; view (f, c) is frame f seen by camera c, undistorted, shrunk and cut out.

    Views that have been read stay in memory as far as `KEPT_BYTES` go, those asked for last.

    Args:
        cameras: Calibrations for the files as they are.
        pictures: Of each frame and camera.
        masks: Likewise; everything that is not 0 is the person. None: only `picture` can be asked for.
        max_side: Pictures are shrunk until neither side is longer.

    Raises:
        InputError: A file is missing or no picture, a camera's pictures differ in size, or a mask has another size.
    """

    def __init__(
        self,
        cameras: Sequence[CaptureCamera],
        pictures: Sequence[Sequence[Path]],
        masks: Optional[Sequence[Sequence[Path]]],
        max_side: int,
    ) -> None:
        self._full, self._pictures, self._masks = list(cameras), pictures, masks
        self._views: OrderedDict[Tuple[int, int], HumanView] = OrderedDict()
        self._kept_bytes = 0
        self._maps: Dict[int, Tuple[np.ndarray, np.ndarray]] = {}
        self._full_sizes = [_one_size([row[c] for row in pictures]) for c in range(len(cameras))]
        for row in masks or ():
            for path, size in zip(row, self._full_sizes):
                if (found := picture_size(path)) != size:
                    raise InputError(
                        f"The mask {path} is {found[0]}x{found[1]}, but its picture {size[0]}x{size[1]}: both must "
                        "have one size."
                    )
        self.sizes: List[Size] = []
        """Width and height of each camera's views."""
        for width, height in self._full_sizes:
            ratio = min(1.0, max_side / max(width, height))
            self.sizes.append((max(1, round(width * ratio)), max(1, round(height * ratio))))
        self.cameras = [c.resized(old, new) for c, old, new in zip(cameras, self._full_sizes, self.sizes)]
        """Calibrations of the views, which have no distortion."""

    def __deepcopy__(self, memo: dict) -> "CapturedScene":
        return self  # datasets copy their metadata; what is read once serves all of them

    def view(self, frame: int, camera: int) -> HumanView:
        """One view.

        Raises:
            InputError: A file cannot be decoded.
        """
        if (frame, camera) not in self._views:
            assert self._masks is not None, "this capture was opened without masks"
            rgb = self.picture(frame, camera)
            labels = np.asarray(_decoded(self._masks[frame][camera]))
            mask = (labels if labels.ndim == 2 else labels[..., :3].any(-1)) != 0
            mask = mask.astype(np.uint8)
            if self._full[camera].distortion.any():
                # Labels between two labels mean something else, so masks are never blended.
                mask = cv2.remap(mask, *self._undistortion(camera), interpolation=cv2.INTER_NEAREST)
            if self.sizes[camera] != self._full_sizes[camera]:
                mask = cv2.resize(mask.astype(np.float32), self.sizes[camera], interpolation=cv2.INTER_AREA)
            person = mask > 0.5
            self._keep((frame, camera), HumanView(rgb * person[..., None], person))
        self._views.move_to_end((frame, camera))
        return self._views[frame, camera]

    def _keep(self, key: Tuple[int, int], view: HumanView) -> None:
        self._views[key] = view
        self._kept_bytes += view.rgb.nbytes + view.mask.nbytes
        while self._kept_bytes > KEPT_BYTES and len(self._views) > 1:
            _, oldest = self._views.popitem(last=False)
            self._kept_bytes -= oldest.rgb.nbytes + oldest.mask.nbytes

    def poses(self) -> Float[Tensor, "cameras 3 4"]:
        """Cameras to world, OpenGL axes."""
        return torch.from_numpy(np.stack([camera.pose() for camera in self.cameras])).float()

    def intrinsics(self) -> Float[Tensor, "cameras 4"]:
        """Of the views; see `CaptureCamera.intrinsics`."""
        return torch.from_numpy(np.stack([camera.intrinsics() for camera in self.cameras])).float()

    def subject(self, frame: int, name: str, keypoints: Float[Tensor, "k 3"]) -> Subject:
        """All views of one frame, of cameras whose pictures have one size.

        Args:
            frame: Number of the frame.
            name: For people to read.
            keypoints: World frame, metres.
        """
        views = [self.view(frame, camera) for camera in range(len(self.cameras))]
        return Subject(
            name=name,
            rgb=torch.from_numpy(np.stack([view.rgb for view in views])),
            mask=torch.from_numpy(np.stack([view.mask for view in views])),
            poses=self.poses(),
            intrinsics=self.intrinsics(),
            keypoints=keypoints,
        )

    def picture(self, frame: int, camera: int) -> UInt8[np.ndarray, "height width 3"]:
        """The picture of one view with the person's surroundings.

        Raises:
            InputError: The file cannot be decoded.
        """
        rgb = np.asarray(_decoded(self._pictures[frame][camera]).convert("RGB"))
        if self._full[camera].distortion.any():
            rgb = cv2.remap(rgb, *self._undistortion(camera), interpolation=cv2.INTER_LINEAR)
        if self.sizes[camera] != self._full_sizes[camera]:
            rgb = cv2.resize(rgb, self.sizes[camera], interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(rgb)

    def _undistortion(self, camera: int) -> Tuple[np.ndarray, np.ndarray]:
        if camera not in self._maps:
            full = self._full[camera]
            self._maps[camera] = cv2.initUndistortRectifyMap(
                full.calibration, full.distortion, np.eye(3), full.calibration, self._full_sizes[camera], cv2.CV_32FC1
            )
        return self._maps[camera]


def picture_size(path: Path) -> Size:
    """Width and height from a picture's header.

    Raises:
        InputError: The file is missing or no picture.
    """
    try:
        with Image.open(path) as picture:
            return picture.size
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}, which the capture names.") from error
    except OSError as error:
        raise InputError(f"{path} is no picture ({type(error).__name__}): it may be half copied.") from error


def _one_size(paths: List[Path]) -> Size:
    sizes = [picture_size(path) for path in paths]
    for path, size in zip(paths, sizes):
        if size != sizes[0]:
            raise InputError(f"{path} is {size[0]}x{size[1]}, but {paths[0].name} of the same camera "
                             f"{sizes[0][0]}x{sizes[0][1]}: a calibration fits one size.")  # fmt: skip
    return sizes[0]


def _decoded(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except OSError as error:
        raise InputError(f"{path} cannot be decoded ({error}): it may be half copied.") from error
