"""Folders that commands write."""

from pathlib import Path

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
