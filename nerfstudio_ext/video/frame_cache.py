"""Decoded clips on disk, for clips that do not fit into memory."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable, Tuple

import numpy as np
from jaxtyping import UInt8
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.host import cache_dir

Frames = UInt8[np.ndarray, "frames height width 3"]
Allocate = Callable[[Tuple[int, ...]], Frames]

# Raise it when the decoded pixels or the files change their meaning, so that old entries are not read.
_LAYOUT = 1
# Left free on the disk.
_SPARE_BYTES = 64e6


def cache_folder() -> Path:
    """Folder of this user's decoded clips."""
    return cache_dir() / "frames"


def frames_on_disk(key: Any, num_bytes: int, decode: Callable[[Allocate], Frames]) -> Frames:
    """Memory-map the frames that an earlier run decoded, or decode them now.

    Args:
        key: Whatever decides the pixels; its `repr` names the entry.
        num_bytes: Bytes that the frames will take.
        decode: Is handed a function that makes room for frames of a given shape, fills that room and returns the
            filled part.

    Returns:
        A private (copy-on-write) mapping.

    Raises:
        InputError: The folder cannot be written or its disk has too little room.
    """
    entry = cache_folder() / hashlib.sha256(repr((_LAYOUT, key)).encode()).hexdigest()[:24]
    if not entry.exists():
        try:
            _decode_entry(entry, num_bytes, decode)
        except OSError as error:
            raise InputError(
                f"The clip takes {num_bytes / 1e9:.1f} GB decoded, too much for memory, and cannot be kept in "
                f"{entry.parent} ({error.strerror}): point the variable NERFSTUDIO_EXT_CACHE to another disk, or "
                "shrink the clip with --max-side or --frame-step."
            ) from error
    num_frames = json.loads((entry / "facts.json").read_text())["num_frames"]
    return np.load(entry / "frames.npy", mmap_mode="c")[:num_frames]


def _decode_entry(entry: Path, num_bytes: int, decode: Callable[[Allocate], Frames]) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(entry.parent).free < num_bytes + _SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    CONSOLE.print(f"The clip takes {num_bytes / 1e9:.1f} GB decoded and is kept on disk, in {entry}", soft_wrap=True)
    # Built aside and renamed in one step, so that an entry is either whole or absent.
    draft = Path(tempfile.mkdtemp(prefix=f"{entry.name}-draft-", dir=entry.parent))
    try:
        frames = decode(lambda shape: _make_room(draft / "frames.npy", shape))
        if isinstance(frames, np.memmap):
            frames.flush()
        (draft / "facts.json").write_text(json.dumps({"num_frames": len(frames)}))
        try:
            draft.rename(entry)
        except OSError:
            # Another process was faster; its entry holds the same frames.
            if not entry.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _make_room(file: Path, shape: Tuple[int, ...]) -> np.memmap:
    frames = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        # The mapping is sparse: on a disk that fills up later, writing to it would kill the process.
        with open(file, "r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
    return frames
