"""Calibrations from files: EasyMocap's `intri.yml` with `extri.yml` beside it, or the `annots.npy` of a capture."""

from pathlib import Path
from typing import Any, List, Tuple

import cv2
import numpy as np

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.capture import CaptureCamera
from nerfstudio_ext.human.zju_layout import UnitName, read_layout

FAR = 50.0
"""Metres; cameras further off than this are in millimetres."""


def read_cameras(path: Path, unit: UnitName = "mm") -> Tuple[List[str], List[CaptureCamera]]:
    """Names and calibrations, in the order of the file.

    Args:
        path: An `annots.npy`, an `intri.yml` with its `extri.yml`, or a folder that holds either.
        unit: Of T in an annots.npy; EasyMocap's are told from their size.

    Raises:
        InputError: There is neither, or it holds something else.
    """
    if path.is_dir():
        found = [path / name for name in ("annots.npy", "intri.yml") if (path / name).is_file()]
        if not found:
            raise InputError(f"{path} holds neither annots.npy nor intri.yml.")
        path = found[0]
    if path.name == "annots.npy":
        layout = read_layout(path.parent, unit)
        return [Path(name).parent.name for name in layout.pictures[0]], layout.cameras
    if path.suffix not in (".yml", ".yaml") or "intri" not in path.name:
        raise InputError(f"{path} is no calibration that is known: name an annots.npy, or EasyMocap's intri.yml.")
    return read_easymocap(path, path.with_name(path.name.replace("intri", "extri")))


def read_easymocap(intrinsics: Path, extrinsics: Path) -> Tuple[List[str], List[CaptureCamera]]:
    """Cameras of EasyMocap: ``names``, ``K_<name>`` and ``dist_<name>`` (k1, k2, p1, p2, k3) in the first file,
    ``Rot_<name>`` or the rotation vector ``R_<name>``, and ``T_<name>`` (x_camera = R x + T, metres) in the second.

    Raises:
        InputError: A file is missing or broken, or a camera lacks one of these.
    """
    inside, outside = _opened(intrinsics), _opened(extrinsics)
    listed = inside.getNode("names")
    names = [listed.at(k).string() for k in range(listed.size())] if listed.isSeq() else []
    if not names:
        raise InputError(f"{intrinsics} lists no camera under 'names'.")
    calibrations, distortions, rotations, translations = [], [], [], []
    for name in names:
        calibrations.append(_numbers(inside, f"K_{name}", 9, intrinsics).reshape(3, 3))
        distortions.append(_numbers(inside, f"dist_{name}", 5, intrinsics))
        if outside.getNode(f"Rot_{name}").empty():
            rotations.append(cv2.Rodrigues(_numbers(outside, f"R_{name}", 3, extrinsics))[0])
        else:
            rotations.append(_numbers(outside, f"Rot_{name}", 9, extrinsics).reshape(3, 3))
        translations.append(_numbers(outside, f"T_{name}", 3, extrinsics))
    for name, rotation in zip(names, rotations):
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2 or np.linalg.det(rotation) < 0:
            raise InputError(f"{extrinsics}: Rot_{name} is no rotation (world to camera, OpenCV axes).")
    largest = max(float(np.linalg.norm(t)) for t in translations)
    scale = 1000.0 if largest > FAR else 1.0
    cameras = [
        CaptureCamera(k, d, r, t / scale) for k, d, r, t in zip(calibrations, distortions, rotations, translations)
    ]
    return names, cameras


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"There is no {path}; EasyMocap writes intri.yml and extri.yml side by side.")
    try:
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
    except (cv2.error, SystemError) as error:
        raise InputError(f"{path} is no file of OpenCV's storage, as EasyMocap writes them.") from error
    if not storage.isOpened():
        raise InputError(f"{path} is no file of OpenCV's storage, as EasyMocap writes them.")
    return storage


def _numbers(storage: Any, key: str, count: int, path: Path) -> np.ndarray:
    node = storage.getNode(key)
    matrix = None if node.empty() else node.mat()
    values = np.zeros(0) if matrix is None else np.asarray(matrix, dtype=np.float64).ravel()
    if values.size != count or not np.isfinite(values).all():
        raise InputError(f"{path}: {key} must be {count} finite numbers.")
    return values
