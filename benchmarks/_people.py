"""What the benchmarks of KeypointNeRF share: drawn people of whom something is changed, scores of their pictures."""

import copy
import dataclasses
import math
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Sequence, Tuple

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras

from nerfstudio_ext.human.subject import Subject, SubjectStore
from nerfstudio_ext.human.view_sampling import dilated

TURN, SHIFT = math.radians(60), (2.0, 0.0, 0.0)

Change = Callable[[Subject, int], Subject]
"""Another version of a person, who is given with the number in the store."""


class ChangedStore(SubjectStore):
    """The same people with something changed; cameras move only where poses are said to."""

    def __init__(self, store: SubjectStore, change: Change) -> None:
        self._store, self._change, self.keypoint_names = store, change, store.keypoint_names

    def __len__(self) -> int:
        return len(self._store)

    def name(self, index: int) -> str:
        return self._store.name(index)

    def cameras(self, index: int) -> Cameras:
        return self._store.cameras(index)

    def subject(self, index: int) -> Subject:
        return self._change(self._store.subject(index), index)


@contextmanager
def changed(model: Any, change: Change) -> Iterator[None]:
    """What the model is conditioned on is changed; what its pictures are compared with is not."""
    store = model._store
    model._store = ChangedStore(store, change)
    model._encoded.clear()
    try:
        yield
    finally:
        model._store = store
        model._encoded.clear()


def unchanged(subject: Subject, index: int) -> Subject:
    """Nothing is changed."""
    return subject


def turned_poses(poses: torch.Tensor) -> torch.Tensor:
    """Camera-to-world poses in a world that is turned about the vertical axis and moved."""
    turned = _rotation() @ poses
    return torch.cat([turned[..., :3], turned[..., 3:] + torch.tensor(SHIFT)[:, None]], dim=-1)


def turned(subject: Subject, index: int) -> Subject:
    """Person and cameras in that world; wanted cameras have to be moved likewise."""
    keypoints = subject.keypoints @ _rotation().T + torch.tensor(SHIFT)
    return dataclasses.replace(subject, poses=turned_poses(subject.poses), keypoints=keypoints)


def _rotation() -> torch.Tensor:
    c, s = math.cos(TURN), math.sin(TURN)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def noisy(deviation: float, seed: int = 0) -> Change:
    """Keypoints that are off by normal noise of so many metres along each axis; the same for a person every time."""

    def change(subject: Subject, index: int) -> Subject:
        generator = torch.Generator().manual_seed(1000 * seed + index)
        noise = torch.randn(subject.keypoints.shape, generator=generator)
        return dataclasses.replace(subject, keypoints=subject.keypoints + deviation * noise)

    return change


def eroded(view: int, pixels: int) -> Change:
    """One view whose mask, and with it the picture, has lost so many pixels along its outline."""

    def change(subject: Subject, index: int) -> Subject:
        mask, rgb = subject.mask.clone(), subject.rgb.clone()
        beside = 1 - mask[view : view + 1, None].float()
        mask[view] = dilated(beside, pixels / mask.shape[-1])[0, 0] < 0.5
        rgb[view] = rgb[view] * mask[view][..., None]
        return dataclasses.replace(subject, rgb=rgb, mask=mask)

    return change


def exchanged(store: SubjectStore, first: int) -> Change:
    """A person's cameras and keypoints with the pictures and masks of the next one, from the number `first` on."""

    def change(subject: Subject, index: int) -> Subject:
        other = store.subject(first + (index - first + 1) % (len(store) - first))
        return dataclasses.replace(subject, rgb=other.rgb, mask=other.mask)

    return change


def person_psnr(picture: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor) -> float:
    """PSNR in dB of the person's own pixels."""
    error = float((picture - wanted)[mask[..., 0] > 0.5].square().mean())
    return -10 * float(np.log10(error + 1e-9))


def wanted_camera(camera: Cameras, sources: Sequence[int], move: bool = False) -> Cameras:
    """A camera whose person is reconstructed from these views, on demand in the turned world."""
    camera = copy.deepcopy(camera)
    assert camera.metadata is not None
    camera.metadata["sources"] = torch.tensor([list(sources)])
    if move:
        camera.camera_to_worlds = turned_poses(camera.camera_to_worlds)
    return camera


def spread_over(values: Sequence[int], count: int) -> Tuple[int, ...]:
    """So many of some values, evenly chosen."""
    return tuple(values[k * len(values) // count] for k in range(min(count, len(values))))
