"""Calibrations from files: EasyMocap's `intri.yml` with `extri.yml` beside it, the `.toml` of Pose2Sim, Anipose or
Caliscope, the `.qca.txt` of Qualisys, or the `annots.npy` of a capture."""

import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple
from xml.etree import ElementTree

import cv2
import numpy as np
from jaxtyping import Float

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.capture import CaptureCamera, Size
from nerfstudio_ext.human.zju_layout import UnitName, read_layout

FAR = 50.0
"""Metres; cameras further off than this are in millimetres."""
SUBPIXELS = 64.0
"""Parts of a pixel that Qualisys counts in."""


def read_cameras(path: Path, unit: UnitName = "mm") -> Tuple[List[str], List[CaptureCamera]]:
    """Names and calibrations, in the order of the file.

    Args:
        path: An `annots.npy`, an `intri.yml` with its `extri.yml`, a folder that holds either, a `.toml`, or a
            `.qca.txt`.
        unit: Of T in an annots.npy; those of the others are told from their size, Qualisys has millimetres.

    Raises:
        InputError: There is no such file, or it holds something else.
    """
    if path.is_dir():
        found = [path / name for name in ("annots.npy", "intri.yml") if (path / name).is_file()]
        if not found:
            raise InputError(f"{path} holds neither annots.npy nor intri.yml.")
        path = found[0]
    if path.name == "annots.npy":
        layout = read_layout(path.parent, unit)
        return [Path(name).parent.name for name in layout.pictures[0]], layout.cameras
    if path.suffix == ".toml":
        return read_toml(path)
    if path.name.endswith((".qca.txt", ".qca.xml")):
        return read_qualisys(path)
    if path.suffix not in (".yml", ".yaml") or "intri" not in path.name:
        raise InputError(f"{path} is no calibration that is known: name an annots.npy, EasyMocap's intri.yml, a .toml "
                         "of Pose2Sim, Anipose or Caliscope, or a .qca.txt of Qualisys.")  # fmt: skip
    return read_easymocap(path, path.with_name(path.name.replace("intri", "extri")))


def write_easymocap(folder: Path, names: Sequence[str], cameras: Sequence[CaptureCamera]) -> None:
    """EasyMocap's `intri.yml` and `extri.yml` (see `read_easymocap`), metres.

    Raises:
        InputError: Two names would be one in the file, which knows letters, digits, `_` and `-` alone.
    """
    plain = [re.sub(r"[^\w-]", "_", name, flags=re.ASCII) for name in names]
    if len(set(plain)) < len(plain):
        raise InputError(f"The cameras {', '.join(names)} would share names in {folder / 'intri.yml'}: rename them.")
    inside, outside = (cv2.FileStorage(str(folder / f"{x}.yml"), cv2.FILE_STORAGE_WRITE) for x in ("intri", "extri"))
    for storage in (inside, outside):
        storage.startWriteStruct("names", cv2.FileNode_SEQ)
        for name in plain:
            storage.write("", name)
        storage.endWriteStruct()
    for name, camera in zip(plain, cameras):
        inside.write(f"K_{name}", camera.calibration)
        inside.write(f"dist_{name}", camera.distortion[None])
        for key, pixels in zip("WH", camera.size or ()):
            inside.write(f"{key}_{name}", pixels)
        outside.write(f"R_{name}", cv2.Rodrigues(camera.rotation)[0])
        outside.write(f"Rot_{name}", camera.rotation)
        outside.write(f"T_{name}", camera.translation[:, None])
    inside.release()
    outside.release()


def read_easymocap(intrinsics: Path, extrinsics: Path) -> Tuple[List[str], List[CaptureCamera]]:
    """Cameras of EasyMocap: ``names``, ``K_<name>`` and ``dist_<name>`` (k1, k2, p1, p2, k3) in the first file,
    ``Rot_<name>`` or the rotation vector ``R_<name>``, and ``T_<name>`` (x_camera = R x + T, metres) in the second;
    perhaps the pictures' size, ``W_<name>`` and ``H_<name>``, in the first.

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
    parts = list(zip(calibrations, distortions, rotations, translations))
    sizes = [_size([inside.getNode(f"{key}_{name}").real() for key in "WH"]) for name in names]
    return names, _checked(names, parts, extrinsics, sizes)


def read_toml(path: Path) -> Tuple[List[str], List[CaptureCamera]]:
    """Cameras of Pose2Sim, Anipose and Caliscope: a table for each (Caliscope's inside ``cameras``) with ``matrix``,
    ``distortions`` (k1, k2, p1, p2 and perhaps k3), ``rotation`` (a vector, or a matrix) and ``translation``
    (x_camera = R x + T, metres or millimetres). Cameras with ``ignore = true`` are left out.

    Raises:
        InputError: The file is missing or broken, a camera lacks one of these, or has a fisheye lens.
    """
    if sys.version_info < (3, 11):
        raise InputError(f"{path}: Python reads .toml from 3.11 on; use that, or EasyMocap's intri.yml.")
    import tomllib

    content = _text(path)
    try:
        tables = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is no TOML ({error}).") from error
    tables = tables.get("cameras", tables)
    found = {k: v for k, v in tables.items() if isinstance(v, dict) and "matrix" in v and not v.get("ignore")}
    if not found:
        raise InputError(f"{path} has no table of a camera, with matrix, distortions, rotation and translation.")
    parts = []
    names = [str(table.get("name", key)) for key, table in found.items()]
    for name, table in zip(names, found.values()):
        if table.get("fisheye"):
            raise InputError(f"{path}: camera {name} has a fisheye lens, which is not known: undistort its pictures.")
        values = {}
        for key, counts in (("matrix", (9,)), ("distortions", (4, 5)), ("rotation", (3, 9)), ("translation", (3,))):
            try:
                values[key] = np.asarray(table.get(key, ()), dtype=np.float64).ravel()
            except (TypeError, ValueError):
                values[key] = np.zeros(0)
            if values[key].size not in counts or not np.isfinite(values[key]).all():
                wanted = " or ".join(map(str, counts))
                raise InputError(f"{path}: {key} of camera {name} must be {wanted} finite numbers.")
        turn = values["rotation"]
        rotation = turn.reshape(3, 3) if turn.size == 9 else cv2.Rodrigues(turn)[0]
        lens = np.pad(values["distortions"], (0, 5 - values["distortions"].size))
        parts.append((values["matrix"].reshape(3, 3), lens, rotation, values["translation"]))
    sizes = [_size(table.get("size")) for table in found.values()]
    return names, _checked(names, parts, path, sizes)


def read_qualisys(path: Path) -> Tuple[List[str], List[CaptureCamera]]:
    """Cameras of Qualisys (`.qca.txt`, which is XML): ``transform`` from the world to axes right, up, backward, with
    the camera's place in millimetres, and ``intrinsic`` in 64ths of a pixel. Distortions have no unit and are taken as
    OpenCV's; Pose2Sim divides these, too, by 64 (on its own recording key points reproject as well in either way).

    Raises:
        InputError: The file is missing or broken, or a camera lacks one of these.
    """
    try:
        elements = list(ElementTree.fromstring(_text(path)).iter("camera"))
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path} is no calibration of Qualisys ({error}).") from error
    if not elements:
        raise InputError(f"{path} lists no camera.")
    names, parts, sizes = [str(element.get("serial", k)) for k, element in enumerate(elements)], [], []
    for name, element in zip(names, elements):
        values = {k: v for kind in ("transform", "intrinsic") for e in element.findall(kind) for k, v in e.items()}

        where = f"{path}: camera {name}"
        rotation = _attributes(values, [f"r{row}{column}" for row in "123" for column in "123"], where).reshape(3, 3)
        rotation = rotation * [[1.0], [-1.0], [-1.0]]
        inside = ("focalLengthU", "focalLengthV", "centerPointU", "centerPointV")
        fx, fy, cx, cy = _attributes(values, inside, where) / SUBPIXELS
        bent = ("radialDistortion1", "radialDistortion2", "tangentalDistortion1", "tangentalDistortion2")
        lens = _attributes(values, (*bent, "radialDistortion3"), where)
        centre = _attributes(values, "xyz", where) / 1000
        parts.append((np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), lens, rotation, -rotation @ centre))
        # First and last column and row of the video.
        view = {k: v for e in element.findall("fov_video") for k, v in e.items()}
        whole = view.get("left") == view.get("top") == "0"
        sizes.append(_size([view.get("right"), view.get("bottom")], 1) if whole else None)
    return names, _checked(names, parts, path, sizes)


def _size(found: Any, more: int = 0) -> Optional[Size]:
    """Width and height where they are two numbers, with so many pixels more."""
    try:
        width, height = (int(float(value)) + more for value in found)
    except (TypeError, ValueError):
        return None
    return (width, height) if width > 1 and height > 1 else None


def _attributes(values: Dict[str, str], keys: Sequence[str], where: str) -> Float[np.ndarray, "n"]:
    try:
        found = np.array([float(values[key]) for key in keys])
    except (KeyError, ValueError):
        found = np.array([np.nan])
    if not np.isfinite(found).all():
        raise InputError(f"{where} needs numbers in {', '.join(keys)}.")
    return found


def _checked(
    names: Sequence[str],
    parts: Sequence[Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    path: Path,
    sizes: Optional[Sequence[Optional[Size]]] = None,
) -> List[CaptureCamera]:
    """Cameras in metres.

    Args:
        names: Of the cameras.
        parts: Calibration, distortion, rotation and translation of each.
        path: Where they are from.
        sizes: Of the pictures that they are for, where the file says it.

    Raises:
        InputError: A rotation is none.
    """
    for name, (_, _, rotation, _) in zip(names, parts):
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2 or np.linalg.det(rotation) < 0:
            raise InputError(f"{path}: the rotation of camera {name} is none (world to camera, OpenCV axes).")
    scale = 1000.0 if max(float(np.linalg.norm(shift)) for *_, shift in parts) > FAR else 1.0
    sizes = sizes or [None] * len(parts)
    return [CaptureCamera(k, d, r, t / scale, size) for (k, d, r, t), size in zip(parts, sizes)]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}).") from error


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
