"""What commands may write to."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Iterator, Optional

from nerfstudio_ext.engine.errors import InputError


def require_empty(folder: Path, remedy: str = "name a new folder") -> None:
    """Let a command write into a folder that is new or empty alone, so that nothing of an older one is mixed in.

    Raises:
        InputError: It holds something, or is a file.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file: {remedy}.")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: {remedy}.")


def require_other(output: Path, *read: Optional[Path]) -> None:
    """Keep a command from writing over what it reads.

    Args:
        output: File to be written.
        read: Files that are there; none where there is nothing to read.

    Raises:
        InputError: They are one file, perhaps by another name.
    """
    for path in read:
        if path is not None and output.exists() and path.exists() and output.samefile(path):
            raise InputError(f"{output} is {path} itself, which would be lost: write to another file.")


def require_writable(output: Path, suffix: str) -> None:
    """Make place for a file before the work is done that it will hold.

    Args:
        output: File to be written; missing folders are made.
        suffix: How it must end.

    Raises:
        InputError: It ends in something else, is a folder, or nothing can be written beside it.
    """
    if output.suffix != suffix:
        raise InputError(f"{output} must end in {suffix}.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror}): choose another place.") from error
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise InputError(f"{output} cannot be written: it is a folder, or is in one that is read-only.")


@contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """A new folder to write in, whose contents move to an empty or new one when all is written.

    Of a command that fails or is interrupted nothing is left, so that it can be tried again.
    """
    folder.resolve().parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.resolve().name}-", dir=folder.resolve().parent) as place:
        yield Path(place)
        folder.mkdir(exist_ok=True)
        for path in Path(place).iterdir():
            shutil.move(path, folder / path.name)
