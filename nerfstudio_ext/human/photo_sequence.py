"""Several moments of one person, or several people, each a folder of photographs of its own, in the order of names."""

from functools import lru_cache
from pathlib import Path
from typing import Any, List, Sequence, Tuple

from nerfstudio.cameras.cameras import Cameras

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.photos import PhotoStore
from nerfstudio_ext.human.subject import Subject, SubjectStore

KEPT = 4
"""Moments whose pictures stay in memory."""


class PhotoSequence(SubjectStore):
    """Moments of a person, or people; number k of the store is the k-th of them.

    Args:
        folders: One per moment or person, each as `PhotoStore` reads it.
        size: Pixels along a side of the framed pictures.
        keypoint_names: The set and order that the network was trained with.
        moments: Whether they are moments of one person.

    Raises:
        InputError: A folder cannot be read, or moments differ in their number of photos.
    """

    def __init__(self, folders: Sequence[Path], size: int, keypoint_names: Sequence[str], moments: bool = True) -> None:
        self.keypoint_names, self._folders = tuple(keypoint_names), list(folders)
        self._moment = lru_cache(KEPT)(lambda index: PhotoStore(self._folders[index], size, keypoint_names))
        self._cameras: List[Cameras] = [self._moment(index).cameras(0) for index in range(len(folders))]
        for folder, cameras in zip(self._folders, self._cameras):
            if moments and len(cameras) != len(self._cameras[0]):
                raise InputError(
                    f"{folder} has {len(cameras)} photos, but {self._folders[0].name} {len(self._cameras[0])}: every "
                    "moment needs the same cameras; if these are different people, say --folders people."
                )

    def __len__(self) -> int:
        return len(self._folders)

    def name(self, index: int) -> str:
        return self._folders[index].name

    def cameras(self, index: int) -> Cameras:
        return self._cameras[index]

    def subject(self, index: int) -> Subject:
        return self._moment(index).subject(0)

    def version(self, index: int) -> Tuple[Any, ...]:
        return self._moment(index).version(0)


def read_person(folder: Path, size: int, keypoint_names: Sequence[str], moments: bool = True) -> SubjectStore:
    """A person's photographs: a folder with transforms.json, or one with a folder like that for each moment or person.

    Raises:
        InputError: See `PhotoStore` and `PhotoSequence`.
    """
    inside = sorted(path.parent for path in folder.glob("*/transforms.json"))
    if (folder / "transforms.json").is_file() or not inside:
        return PhotoStore(folder, size, keypoint_names)
    return PhotoSequence(inside, size, keypoint_names, moments)
