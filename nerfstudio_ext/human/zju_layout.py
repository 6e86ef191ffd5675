"""The folder layout of ZJU-MoCap: `annots.npy`, pictures, masks, and a body fitted to each frame.

``annots["cams"]`` holds lists K, D, R, T over the cameras (x_camera = R x + T, T in millimetres), ``annots["ims"]`` a
dict per frame whose "ims" names one picture per camera. `params/{i}.npy` holds Rh and Th (metres), `vertices/{i}.npy`
the posed vertices (metres, world); `new_params/` and `new_vertices/` a better fit. `annots.npy` and `params` are
pickles, of which only plain arrays and containers are read.
"""

import pickle
from pathlib import Path
from typing import Any, Dict, Literal, Optional, Sequence

import numpy as np
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import BodyMotion, read_body, read_frame_ids
from nerfstudio_ext.human.capture import CaptureCamera, CaptureLayout, picture_size

FitName = Literal["auto", "new", "first"]
UnitName = Literal["mm", "m"]
FACES = "faces.npy"
"""Not part of the original layout: [faces, 3], so that a body can be drawn filled."""
_ARRAYS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}


class PlainUnpickler(pickle.Unpickler):
    """Reads numbers and containers and refuses anything that could run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}")
        return super().find_class(module, name)


def read_plain(path: Path) -> Any:
    """The object in an `.npy` file: an array, or a pickle of arrays and containers.

    Raises:
        InputError: The file is missing, broken, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            reader = {(1, 0): np.lib.format.read_array_header_1_0}.get(version, np.lib.format.read_array_header_2_0)
            _, _, kind = reader(file)
            if not kind.hasobject:
                return np.load(path, allow_pickle=False)
            return PlainUnpickler(file, encoding="latin1").load().item()
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}.") from error
    except Exception as error:
        raise InputError(f"{path} cannot be read as a file of plain numbers ({error}).") from error


def read_layout(folder: Path, unit: UnitName = "mm") -> CaptureLayout:
    """Cameras and picture names of a folder.

    Args:
        folder: The one that holds annots.npy.
        unit: Of T.

    Raises:
        InputError: The file is missing or holds something else, cameras are impossible, a frame lacks a camera, T is
            plainly not in that unit, or K is for pictures of another size.
    """
    path = folder / "annots.npy"
    annots = read_plain(path)
    try:
        cams, frames = annots["cams"], annots["ims"]
        count = len(cams["K"])
        arrays = {k: np.asarray([np.asarray(x, dtype=np.float64).ravel() for x in cams[k]]) for k in "KDRT"}
        pictures = [[str(name) for name in frame["ims"]] for frame in frames]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{path} is not laid out as ZJU-MoCap's: it needs cams with K, D, R and T, and ims ({error!r})."
        ) from error
    for key, numbers in (("K", 9), ("D", 5), ("R", 9), ("T", 3)):
        if arrays[key].shape != (count, numbers) or not np.isfinite(arrays[key]).all():
            raise InputError(f"{path}: {key} must be {numbers} finite numbers for each of the {count} cameras.")
    if not pictures or count == 0:
        raise InputError(f"{path} names no picture or no camera.")
    for frame, row in enumerate(pictures):
        if len(row) != count:
            raise InputError(
                f"{path}: frame {frame} names {len(row)} pictures for {count} cameras; leave out frames that a camera "
                "missed, or that camera."
            )
    rotations = arrays["R"].reshape(-1, 3, 3)
    for camera, rotation in enumerate(rotations):
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2 or np.linalg.det(rotation) < 0:
            raise InputError(f"{path}: R of camera {camera} is no rotation (world to camera, OpenCV axes).")
    _check_unit(arrays["T"], unit, path)
    cameras = [
        CaptureCamera(k.reshape(3, 3), d, r, t / (1000.0 if unit == "mm" else 1.0))
        for k, d, r, t in zip(arrays["K"], arrays["D"], rotations, arrays["T"])
    ]
    for number, (camera, name) in enumerate(zip(cameras, pictures[0])):
        # A calibration alone comes without pictures; those that a user misses are missed where they are opened.
        if (folder / name).is_file():
            remedy = "scale K with the pictures, or the pictures to the size that it was made for"
            camera.require_fitting(f"camera {number} in {path}", picture_size(folder / name), remedy)
    keypoints = [np.asarray(frame["kpts2d"], dtype=np.float64) for frame in frames if "kpts2d" in frame]
    whole = len(keypoints) == len(frames) and all(k.ndim == 3 and k.shape == keypoints[0].shape for k in keypoints)
    numbers = [frame_number(row[0]) for row in pictures]
    return CaptureLayout(folder, cameras, pictures, numbers, np.stack(keypoints) if whole else None)


def _check_unit(translations: np.ndarray, unit: UnitName, path: Path) -> None:
    largest = float(np.linalg.norm(translations, axis=1).max())
    if unit == "mm" and largest < 50:
        raise InputError(f"{path}: T reaches {largest:.3g}, which in ZJU-MoCap's millimetres puts all cameras within "
                         "5 cm of one another: if it is in metres, say so with --translation-unit m.")  # fmt: skip
    if unit == "m" and largest > 50:
        raise InputError(f"{path}: T reaches {largest:.4g}, which is no distance in metres: leave --translation-unit m "
                         "out if it is in millimetres.")  # fmt: skip


def frame_number(picture: str) -> int:
    """Number of the body files that belong to a picture: the stem `000012`, or the fifth word of the long names of
    subjects 313 and 315, as in `CoreView_313_Camera_(1)_0012_2019-08-23_16-08-50.592.jpg`.

    Raises:
        InputError: The name follows neither scheme.
    """
    stem = Path(picture).stem
    words = stem.split("_")
    if stem.isdigit():
        return int(stem)
    if len(words) > 4 and words[4].isdigit():
        return int(words[4])
    raise InputError(
        f"The picture {picture} is named neither by its frame (000012.jpg) nor as subjects 313 and 315 are "
        "(the fifth word between underscores), so the body of its frame is not known."
    )


def read_zju_body(layout: CaptureLayout, fit: FitName, frames: Sequence[int]) -> BodyMotion:
    """The body in some frames, unchecked.

    Args:
        layout: The folder.
        fit: ``first`` (params, vertices), ``new`` (new_params, new_vertices), or the new one where it is there.
        frames: Positions in `annots.npy`.

    Raises:
        InputError: There is no such fit, or a file of it is missing or of another shape.
    """
    prefix = "new_" if fit == "new" or (fit == "auto" and (layout.folder / "new_vertices").is_dir()) else ""
    if not (layout.folder / f"{prefix}vertices").is_dir():
        raise InputError(
            f"{layout.folder} has no {prefix}vertices/: name the body with --body, or fit one with 'ns-ext human fit'."
        )
    vertices, rotations, translations = [], [], []
    for frame in frames:
        number = layout.numbers[frame]
        path = layout.folder / f"{prefix}vertices" / f"{number}.npy"
        points = np.asarray(read_plain(path))
        if points.ndim != 2 or points.shape[1] != 3 or (vertices and points.shape != vertices[0].shape):
            raise InputError(f"{path} holds {list(points.shape)} numbers: every frame needs the same [vertices, 3].")
        params = layout.folder / f"{prefix}params" / f"{number}.npy"
        values: Dict[str, Any] = read_plain(params)
        try:
            rotations.append(np.asarray(values["Rh"], dtype=np.float32).reshape(3))
            translations.append(np.asarray(values["Th"], dtype=np.float32).reshape(3))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{params} must hold Rh and Th, three numbers each ({error!r}).") from error
        vertices.append(points.astype(np.float32))
    faces_path = layout.folder / FACES
    faces = read_plain(faces_path) if faces_path.is_file() else np.zeros((0, 3), dtype=np.int64)
    return BodyMotion(
        torch.from_numpy(np.stack(vertices)),
        torch.from_numpy(np.asarray(faces, dtype=np.int64)),
        torch.from_numpy(np.stack(rotations)),
        torch.from_numpy(np.stack(translations)),
    )


def capture_body(layout: CaptureLayout, body: Optional[Path], fit: FitName, frames: Sequence[int]) -> BodyMotion:
    """The checked body of some frames, from the folder's fits or from a `body.npz`: this one, or the capture's own.

    Where a `body.npz` has ``frame_ids``, they say which frame of the capture each of its frames is; otherwise it has
    those of the capture, in their order.

    Raises:
        InputError: There is none, or it cannot be the body of these frames.
    """
    path = layout.body if body is None else body
    if path is None:
        return read_zju_body(layout, fit, frames).check(f"The body in {layout.folder}")
    motion, ids = read_body(path), read_frame_ids(path)
    if ids is not None:
        rows = {number: row for row, number in enumerate(ids)}
        lacking = [layout.numbers[frame] for frame in frames if layout.numbers[frame] not in rows]
        if len(ids) != len(motion.vertices):
            raise InputError(f"{path}: frame_ids has {len(ids)} numbers for a body in {len(motion.vertices)} frames.")
        if lacking:
            raise InputError(f"{path} has no body for frame {lacking[0]} of {layout.folder}: fit every frame that is "
                             "used, or choose others with --begin and --frames.")  # fmt: skip
        return motion.at([rows[layout.numbers[frame]] for frame in frames])
    if len(motion.vertices) != len(layout.pictures):
        raise InputError(
            f"{path} has {len(motion.vertices)} frames, but {layout.folder} {len(layout.pictures)}: fit the body to "
            "the frames of this capture."
        )
    return motion.at(frames)
