"""What commands may write to."""

from pathlib import Path
from typing import Optional

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
