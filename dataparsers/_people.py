"""What the dataparsers of many people share: all their pictures in one list, each knowing whose it is."""

from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.scene_box import SceneBox

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.subject import SubjectStore

HALF_SIDE = 1.5
"""Metres from the origin to the sides of the scene's box."""


def source_views(text: str, cameras: int, what: str, ring: bool = True) -> Tuple[int, ...]:
    """The views that a person is reconstructed from: a number, spread evenly, or indices with commas.

    Args:
        text: As given by the user.
        cameras: How many there are.
        what: The option's name, for messages.
        ring: Whether the last camera stands beside the first; otherwise those at the ends are left for comparing.

    Raises:
        InputError: There are no such views, or none is left to compare with.
    """
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"{what} wants a number of views, or indices as in 0,2,5, not '{text}'.") from None
    spread = [(2 * k + (not ring)) * cameras // (2 * max(numbers[0], 1)) for k in range(numbers[0])]
    chosen = numbers if "," in text else spread
    if len(chosen) < 2:
        raise InputError(f"{what} {text}: a person is reconstructed from two views at least.")
    if len(set(chosen)) < len(chosen) or not all(0 <= view < cameras for view in chosen):
        raise InputError(f"{what} {text} does not fit {cameras} cameras: name different ones, 0 to {cameras - 1}.")
    return tuple(chosen)


def people_outputs(
    store: SubjectStore,
    views: Sequence[Tuple[int, int]],
    sources: Dict[int, Tuple[int, ...]],
    shown: int,
    moments: bool = False,
) -> DataparserOutputs:
    """Pictures of several people as one data set.

    Cameras carry, in their metadata, `subject` [N, 1] and `sources` [N, V], the person that is seen and the views that
    this person is reconstructed from. They survive slicing and reach the rays.

    Args:
        store: All people.
        views: Person and camera of each picture.
        sources: Views that each of these people is reconstructed from; equally many.
        shown: The person that cameras without such metadata look at.
        moments: The people are moments of one; cameras carry the time, 0 at the first and 1 at the last.
    """
    of_person = {index: store.cameras(index) for index in dict.fromkeys(index for index, _ in views)}
    parts: List[Cameras] = [of_person[index][camera : camera + 1] for index, camera in views]

    def joined(name: str) -> torch.Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    cameras = Cameras(
        **{name: joined(name) for name in ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height")},
        camera_type=CameraType.PERSPECTIVE,
        times=torch.tensor([[index / (len(store) - 1)] for index, _ in views]) if moments else None,
        metadata={
            "subject": torch.tensor([[index] for index, _ in views]),
            "sources": torch.tensor([sources[index] for index, _ in views]),
        },
    )
    half = torch.full((3,), HALF_SIDE)
    return DataparserOutputs(
        image_filenames=[Path(store.name(index)) / f"camera_{camera:02d}.png" for index, camera in views],
        cameras=cameras,
        scene_box=SceneBox(aabb=torch.stack([-half, half])),
        metadata={"subjects": store, "views": list(views), "sources": sources, "shown": shown, "moments": moments},
    )
