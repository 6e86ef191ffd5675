"""Fitted parameters of the SMPL family, one file per frame, as ZJU-MoCap (.npy) and EasyMocap (.json) write them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.zju_layout import read_plain

KEYS, EXPRESSION = ("poses", "Rh", "Th", "shapes"), "expression"


@dataclass(frozen=True)
class SmplParams:
    """Of all frames, in the order of their numbers."""

    poses: Float[Tensor, "frames numbers"]
    betas: Float[Tensor, "shapes"]
    """The mean over the frames: one person has one shape."""
    root_rotation: Float[Tensor, "frames 3"]
    root_translation: Float[Tensor, "frames 3"]
    numbers: List[int]
    """Of the files."""
    expressions: Optional[Float[Tensor, "frames expressions"]] = None
    """Of SMPL-X's face, where all files have one."""


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
