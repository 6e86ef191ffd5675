"""Fitted parameters of the SMPL family: one file per frame, as ZJU-MoCap (.npy) and EasyMocap (.json) write them, or
one `.npz` of a whole motion, as AMASS and SMPL's makers do."""

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.archives import read_arrays
from nerfstudio_ext.human.zju_layout import read_plain

KEYS, EXPRESSION = ("poses", "Rh", "Th", "shapes"), "expression"
RATES = ("mocap_framerate", "mocap_frame_rate")
"""What releases of AMASS call the frames per second."""


@dataclass(frozen=True)
class SmplParams:
    """Of all frames, in the order of their numbers."""

    poses: Float[Tensor, "frames numbers"]
    betas: Float[Tensor, "shapes"]
    """The mean over the frames: one person has one shape."""
    root_rotation: Float[Tensor, "frames 3"]
    root_translation: Float[Tensor, "frames 3"]
    numbers: List[int]
    """Of the files, or in the file of the whole motion."""
    expressions: Optional[Float[Tensor, "frames expressions"]] = None
    """Of SMPL-X's face, where all files have one."""
    gender: Optional[str] = None
    """Of the body that they are for, where it is said."""


def read_params(folder: Path) -> SmplParams:
    """Parameters of every frame in a folder.

    Raises:
        InputError: There are none, a file lacks a part of them, or frames differ in their numbers.
    """
    files = [path for path in folder.glob("*") if path.suffix in (".npy", ".json") and path.stem.isdigit()]
    if not files:
        raise InputError(f"{folder} holds no parameters: 0.npy, 1.npy, ... or 000000.json, 000001.json, ...")
    files = sorted(files, key=lambda path: int(path.stem))
    frames = [_read(path) for path in files]
    arrays = {}
    wanted = [*KEYS, *([EXPRESSION] if all(EXPRESSION in frame for frame in frames) else [])]
    for key in wanted:
        rows = [frame[key] for frame in frames]
        if len({row.shape for row in rows}) > 1:
            raise InputError(f"The frames in {folder} differ in how many numbers their {key} has.")
        arrays[key] = torch.from_numpy(np.stack(rows)).float()
    numbers = [int(path.stem) for path in files]
    betas = arrays["shapes"].mean(0)
    return SmplParams(arrays["poses"], betas, arrays["Rh"], arrays["Th"], numbers, arrays.get(EXPRESSION))


def read_motion(path: Path, fps: Optional[float] = None) -> SmplParams:
    """Parameters from one `.npz`: poses [T, numbers] with global_orient first, trans [T, 3] (transl, metres), betas,
    and perhaps mocap_framerate and gender.

    Args:
        path: The file.
        fps: Frames per second to keep, those nearest in time; none: all.

    Raises:
        InputError: The file is unreadable, lacks a part, its parts do not fit together, or it does not say the frame
            rate that is asked for, or a lower one.
    """
    found = read_arrays(path, ("poses", "betas", "trans"), RATES)
    poses, betas, trans = (found[key] for key in ("poses", "betas", "trans"))
    frames = len(poses) if poses.ndim else 0
    if any(value.dtype.kind not in "fiu" for value in found.values()):
        raise InputError(f"{path}: poses, betas, trans and the frame rate must be numbers.")
    if frames == 0 or poses.ndim != 2 or poses.shape[1] < 6 or trans.shape != (frames, 3):
        raise InputError(f"{path}: poses {list(poses.shape)} and trans {list(trans.shape)} must be [frames, 3 for each "
                         "joint] and [frames, 3].")  # fmt: skip
    if betas.ndim == 2 and len(betas) == frames:
        betas = betas.mean(0)
    if betas.squeeze().ndim != 1:
        raise InputError(f"{path}: betas {list(betas.shape)} must be one shape, or one for each frame.")
    chosen = np.arange(frames)
    if fps is not None:
        rate = next((float(found[key]) for key in RATES if key in found and found[key].size == 1), math.nan)
        if not 0 < fps <= rate:
            said = f"its motion has {rate:g}" if rate > 0 else f"it has no {RATES[0]}"
            raise InputError(f"{path} cannot be thinned to --fps {fps:g} frames per second: {said}.")
        times = np.arange(0, frames - 0.5, rate / fps)
        chosen = np.minimum(times.round().astype(int), frames - 1)
    poses, trans = (torch.from_numpy(np.asarray(x[chosen], dtype=np.float32)) for x in (poses, trans))
    shape = torch.from_numpy(np.asarray(betas.squeeze(), dtype=np.float32))
    return SmplParams(poses, shape, poses[:, :3], trans, chosen.tolist(), gender=_gender(path))


def _gender(path: Path) -> Optional[str]:
    """What a file says in words; some say it as a Python object, which is not read."""
    with suppress(ValueError), np.load(path) as archive:
        told = archive["gender"].item() if "gender" in archive else None
        return told.decode("ascii", "replace") if isinstance(told, bytes) else told
    return None


def _read(path: Path) -> Dict[str, np.ndarray]:
    content: Any = read_plain(path) if path.suffix == ".npy" else _read_json(path)
    try:
        known = [*KEYS, *([EXPRESSION] if EXPRESSION in content else [])]
        values = {key: np.asarray(content[key], dtype=np.float64).ravel() for key in known}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path} must hold {', '.join(KEYS)} ({error!r}).") from error
    for key in ("Rh", "Th"):
        if values[key].shape != (3,):
            raise InputError(f"{path}: {key} has {values[key].size} numbers where 3 are needed.")
    return values


def _read_json(path: Path) -> Any:
    """The first person of EasyMocap's file; older ones are a bare list."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        people: List[Any] = content["annots"] if isinstance(content, dict) else content
        return people[0]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path} is no file of EasyMocap's with a person in it ({error!r}).") from error
