"""People-Snapshot's recordings: one person who turns before one camera, with SMPL's parameters for every frame.

A subject's folder holds `camera.pkl` (camera_f, camera_c, camera_k, camera_rt, camera_t), `masks.hdf5` (masks
[F, H, W]) and `reconstructed_poses.hdf5` (betas, pose [F, 72], trans [F, 3]) beside the video. Poses turn about the
pelvis, as smplx has it; the world is the camera's, y down. Here z is up and the origin where the person stands on
average.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Sequence, Tuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.capture import CaptureCamera
from nerfstudio_ext.human.smpl_body import SmplBody, easymocap_motion, from_smplx
from nerfstudio_ext.human.zju_layout import PlainUnpickler

UPRIGHT = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])
"""From y down to z up."""


@dataclass(frozen=True)
class Snapshot:
    """One subject, in the world of its files."""

    folder: Path
    video: Path
    camera: CaptureCamera
    betas: Float[np.ndarray, "shapes"]
    poses: Float[np.ndarray, "frames numbers"]
    translations: Float[np.ndarray, "frames 3"]
    frames: int
    """Masks; where there are more poses, the last ones belong to them."""

    def mask(self, frame: int) -> Bool[np.ndarray, "height width"]:
        """The mask of one frame of the video."""
        import h5py

        with h5py.File(self.folder / "masks.hdf5", "r") as file:
            masks: Any = file["masks"]
            return np.asarray(masks[frame]) > 0

    def upright(self, body: SmplBody, frames: Sequence[int]) -> Tuple[CaptureCamera, BodyMotion]:
        """Camera and posed body of some frames in a world with z up.

        Raises:
            InputError: The poses are of another body.
        """
        chosen, centre = list(frames), self.translations.mean(0)
        poses, betas = (torch.from_numpy(np.asarray(array)).float() for array in (self.poses[chosen], self.betas))
        # Their body turns about the pelvis at rest, a motion's about the world's origin.
        shifts = torch.from_numpy(self.translations[chosen] - centre).float()
        places = from_smplx(body, betas, poses[:, :3], shifts)[1] @ torch.from_numpy(UPRIGHT).float().T
        turns = [cv2.Rodrigues(UPRIGHT @ cv2.Rodrigues(root)[0])[0][:, 0] for root in self.poses[chosen, :3]]
        roots = torch.from_numpy(np.stack(turns)).float()
        motion = easymocap_motion(body, poses, betas, roots, places).check(str(self.folder))
        old = self.camera
        rotation = old.rotation @ UPRIGHT.T
        camera = CaptureCamera(old.calibration, old.distortion, rotation, old.rotation @ centre + old.translation)
        return camera, motion


def read_snapshot(folder: Path) -> Snapshot:
    """A subject's folder.

    Raises:
        InputError: A file is missing, broken, or lacks a part.
    """
    videos = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".mp4", ".avi", ".mov"))
    if len(videos) != 1:
        raise InputError(f"{folder} holds {len(videos)} videos where a subject of People-Snapshot has one.")
    poses = _arrays(folder / "reconstructed_poses.hdf5", {"betas": 1, "pose": 2, "trans": 2})
    shape = _shape(folder / "masks.hdf5")
    if len(poses["pose"]) < shape[0] or len(poses["trans"]) != len(poses["pose"]) or poses["trans"].shape[1] != 3:
        raise InputError(
            f"{folder} has {shape[0]} masks, {len(poses['pose'])} poses and {len(poses['trans'])} translations: every "
            "mask needs both."
        )
    last = slice(len(poses["pose"]) - shape[0], None)
    camera = _camera(folder / "camera.pkl")
    return Snapshot(folder, videos[0], camera, poses["betas"], poses["pose"][last], poses["trans"][last], shape[0])


def _camera(path: Path) -> CaptureCamera:
    try:
        with path.open("rb") as file:
            content: Dict[str, Any] = PlainUnpickler(file, encoding="latin1").load()
        wanted = {"camera_f": 2, "camera_c": 2, "camera_k": 5, "camera_rt": 3, "camera_t": 3}
        values = {key: np.asarray(content[key], dtype=np.float64).reshape(count) for key, count in wanted.items()}
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}.") from error
    except Exception as error:
        raise InputError(f"{path} is no camera of People-Snapshot's ({error!r}).") from error
    (fx, fy), (cx, cy) = values["camera_f"], values["camera_c"]
    calibration = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return CaptureCamera(calibration, values["camera_k"], cv2.Rodrigues(values["camera_rt"])[0], values["camera_t"])


def _arrays(path: Path, wanted: Dict[str, int]) -> Dict[str, np.ndarray]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = {key: np.asarray(file[key], dtype=np.float64) for key in wanted}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} must hold {', '.join(wanted)} ({error}).") from error
    for key, dimensions in wanted.items():
        if found[key].ndim != dimensions or not np.isfinite(found[key]).all():
            raise InputError(f"{path}: {key} must be finite numbers in {dimensions} dimensions.")
    return found


def _shape(path: Path) -> Tuple[int, ...]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            masks: Any = file["masks"]
            shape = tuple(masks.shape)
    except (OSError, KeyError) as error:
        raise InputError(f"{path} must hold masks ({error}).") from error
    if len(shape) != 3 or shape[0] == 0:
        raise InputError(f"{path}: masks must be [frames, height, width], not {list(shape)}.")
    return shape
