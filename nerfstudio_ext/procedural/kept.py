"""What was drawn once, kept in the user's cache for the next process."""

import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Callable, Dict, Sequence

import numpy as np
import torch
from torch import Tensor


def kept_arrays(path: Path, names: Sequence[str], draw: Callable[[], Dict[str, Tensor]]) -> Dict[str, Tensor]:
    """Arrays from a file of the cache; where it is missing, damaged or lacks one, they are drawn and put there.

    Args:
        path: The `.npz`.
        names: Of the arrays.
        draw: Returns them.
    """
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(path) as archive:
        return {name: torch.from_numpy(archive[name]) for name in names}
    drawn = draw()
    with suppress(OSError):  # a full disk or a home that is read only: the next process draws it again
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may draw the same: each writes a file of its own, and the last rename wins.
        partial = path.with_suffix(f".{os.getpid()}.partial.npz")
        np.savez_compressed(partial, **{name: drawn[name].numpy() for name in names})
        partial.replace(path)
    return drawn
