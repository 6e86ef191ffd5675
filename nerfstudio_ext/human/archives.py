"""Reading `.npz` files of plain numbers, whole or not at all."""

import zipfile
import zlib
from pathlib import Path
from typing import Dict, Sequence

import numpy as np

from nerfstudio_ext.engine.errors import InputError


def read_arrays(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> Dict[str, np.ndarray]:
    """Arrays of an `.npz` by name; optional ones where they are there.

    Raises:
        InputError: The file is missing, half copied, no archive of plain numbers, or lacks an array.
    """
    try:
        with np.load(path) as archive:
            found = {key: np.asarray(archive[key]) for key in (*needed, *optional) if key in archive}
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}.") from error
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} is no .npz of plain numbers, or only a part of one ({type(error).__name__}): write or copy it "
            "again."
        ) from error
    if lacking := [key for key in needed if key not in found]:
        raise InputError(f"{path} must hold {', '.join(needed)}: it lacks {', '.join(lacking)}.")
    return found
