"""What the suite sets right in the process that nerfstudio runs in."""

import ctypes
import os
import shutil
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

from nerfstudio_ext.engine.errors import install_excepthook


def prepare_host() -> None:
    """Prepare the process once, at registration: loadable checkpoints, readable errors, and memory that is kept.

    Cheap and repeatable.
    """
    _allow_numpy_scalars()
    _keep_freed_memory()
    install_excepthook()


def cache_dir() -> Path:
    """Folder for what the suite keeps between runs; the environment variable NERFSTUDIO_EXT_CACHE moves it."""
    moved = os.environ.get("NERFSTUDIO_EXT_CACHE")
    return Path(moved).expanduser() if moved else Path.home() / ".cache" / "nerfstudio-ext"


def ensure_ffmpeg() -> Optional[Path]:
    """Make a program called `ffmpeg` reachable, as nerfstudio's renderer demands, and return it.

    Where PATH has none, the binary that the package imageio-ffmpeg carries is linked into the cache folder under that
    name, and this process (with its children) finds it at the end of PATH. Returns None when there is none at all.
    """
    found = shutil.which("ffmpeg")
    if found:
        return Path(found)
    carried = carried_ffmpeg()
    if carried is None:
        return None
    folder = cache_dir() / "bin"
    link = folder / ("ffmpeg.exe" if os.name == "nt" else "ffmpeg")
    try:
        if not (link.exists() and link.samefile(carried)):
            folder.mkdir(parents=True, exist_ok=True)
            fresh = folder / f".{link.name}.{os.getpid()}"
            if os.name == "nt":  # links need a privilege there
                shutil.copy2(carried, fresh)
            else:
                fresh.symlink_to(carried)
            os.replace(fresh, link)
    except OSError:
        return None  # a read-only home: the renderer will say itself that it misses ffmpeg
    os.environ["PATH"] = os.pathsep.join(filter(None, [os.environ.get("PATH"), str(folder)]))
    return link


def carried_ffmpeg() -> Optional[Path]:
    """The ffmpeg binary inside the package imageio-ffmpeg; None where the package is missing or empty."""
    try:
        import imageio_ffmpeg

        return Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def _keep_freed_memory() -> None:
    """Let glibc keep up to half a gigabyte of freed buffers instead of handing each back to the kernel at once.

    Whole frames of features are freed after every operation, and touching fresh pages again took a third of the time
    of decoding. Where the user has tuned the allocator, or it is another one, nothing happens.
    """
    tuned = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if os.name != "posix" or tuned:
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        trim_threshold, mmap_threshold = -1, -3  # names of the options in malloc.h
        library.mallopt(trim_threshold, 512 << 20)
        library.mallopt(mmap_threshold, 32 << 20)  # the largest that glibc takes


def _allow_numpy_scalars() -> None:
    """Let `torch.load(weights_only=True)` read the numpy scalars that nerfstudio's own schedulers leave in files."""
    if not hasattr(torch.serialization, "add_safe_globals"):
        return  # torch < 2.4 loads everything
    dtypes = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    rebuild_scalar: Any = np.float64(0).__reduce__()[0]
    torch.serialization.add_safe_globals([np.dtype, rebuild_scalar, *dtypes])
    if torch.__version__ >= "2.6":  # older ones do not know renamed globals
        # numpy 1.x and 2.x write the same function under different paths; read both.
        paths = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
        torch.serialization.add_safe_globals([(rebuild_scalar, path) for path in paths])
