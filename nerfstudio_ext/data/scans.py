"""Lessons for networks that reconstruct surfaces: photographs of several drawn people a step, and labelled points."""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple, Type, Union

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_ext.data.people import PeopleDataManager, PeopleDataManagerConfig
from nerfstudio_ext.data.scanned import ScannedPeople
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_surface import BodySurface
from nerfstudio_ext.human.icon_layout import IconLayout, Source
from nerfstudio_ext.human.photo import Lesson, Photo, Sides
from nerfstudio_ext.human.photo_camera import PhotoCamera
from nerfstudio_ext.procedural.people import ProceduralPeople
from nerfstudio_ext.procedural.scans import ProceduralScans, Scan, ScanOptions


@dataclass
class ScanDataManagerConfig(PeopleDataManagerConfig):
    """Several people a step, each in one photograph."""

    _target: Type = field(default_factory=lambda: ScanDataManager)
    photos_per_step: int = 6
    """People in a step."""
    points_per_photo: int = 8000
    """Labelled points of each person in a step, half of them inside as far as there are so many."""
    photos_per_person: int = 36
    """Photographs drawn of each person, half of them with a weak perspective."""
    photo_size: int = 512
    """Width and height of the drawn photographs in pixels."""
    points_per_person: int = 100000
    """Labelled points drawn for each person."""
    keypoint_noise: float = 0.02
    """Standard deviation by which keypoints are moved in training, metres; detectors err, too."""
    scans: Optional[Path] = None
    """Prepared folder of scanned people to train on (`thuman2/`, beside `thuman2_36views/`) instead of drawn ones, who
    are still those that are tested and shown."""
    scans_source: Source = "thuman2"
    """Whose scans they are."""
    bodies: bool = False
    """Bring people without clothes, too, for networks that read ICON's features or visibility of them."""


class ScanDataManager(PeopleDataManager):
    """In training, a step is a `Lesson` instead of rays; opened for rendering, rays see the person that is shown."""

    config: ScanDataManagerConfig

    def setup_train(self) -> None:
        super().setup_train()
        if self.test_mode != "val":
            return
        store = self.train_dataset.store
        if not isinstance(store, ProceduralPeople):
            raise InputError("keypoint-icon trains on people whose surface is known: use procedural-people-data.")
        config = self.config
        options = ScanOptions(config.photos_per_person, config.photo_size, config.points_per_person)
        self._scans = ProceduralScans(store, options)
        self._body = lru_cache(None)(store.body)
        self._scanned = None
        if config.scans is not None:
            layout = IconLayout(config.scans.expanduser(), config.scans_source)
            if config.bodies:
                raise InputError("Scanned people have no body without clothes: leave --bodies or --scans out.")
            self._scanned = ScannedPeople(layout, config.photo_size, config.points_per_person)
            CONSOLE.print(f"{len(layout)} scanned people to train on.")
            return
        CONSOLE.print(
            f"People are drawn when they are first needed: {store.train} to train on, {options.views} photos each."
        )

    def next_train(self, step: int) -> Tuple[Union[RayBundle, Lesson], Dict]:
        if self.test_mode != "val":
            return super().next_train(step)
        self.train_count += 1
        if self._scanned is not None:
            count = min(self.config.photos_per_step, len(self._scanned))
            chosen = torch.randperm(len(self._scanned))[:count].tolist()
            noise, points = self.config.keypoint_noise, self.config.points_per_photo
            lesson = gather_lesson([self._scanned[k] for k in chosen], points, noise).to(torch.device(self.device))
            return lesson, {"lesson": lesson}
        return self._lesson(range(self._scans.people.train), self.config.keypoint_noise)

    def next_eval(self, step: int) -> Tuple[Lesson, Dict]:
        """A lesson from people that training never sees."""
        self.eval_count += 1
        store = self._scans.people
        return self._lesson(range(store.train, len(store)), 0.0)

    def _lesson(self, people: Sequence[int], noise: float) -> Tuple[Lesson, Dict]:
        count = min(self.config.photos_per_step, len(people))
        chosen = [people[k] for k in torch.randperm(len(people))[:count].tolist()]
        bodies = tuple(self._body(k) for k in chosen) if self.config.bodies else None
        lesson = gather_lesson([self._scans[k] for k in chosen], self.config.points_per_photo, noise, bodies)
        lesson = lesson.to(torch.device(self.device))
        return lesson, {"lesson": lesson}


def gather_lesson(
    scans: Sequence[Scan], points: int, noise: float, bodies: Optional[Tuple[BodySurface, ...]] = None
) -> Lesson:
    """One random photograph and random points of each person.

    Args:
        scans: Of the people.
        points: For each person.
        noise: Standard deviation by which keypoints are moved, metres.
        bodies: The same people without clothes.
    """
    views = [int(torch.randint(len(scan.rgb), ())) for scan in scans]
    pictures = {
        name: torch.stack([getattr(scan, name)[view] for scan, view in zip(scans, views)]).float()
        for name in ("rgb", "back_rgb", "normals", "back_normals")
    }
    mask = (pictures["normals"] != 0).any(1, keepdim=True).float()
    keypoints = torch.stack([scan.keypoints for scan in scans])
    cameras = [scan.camera[torch.tensor([view])] for scan, view in zip(scans, views)]
    camera = PhotoCamera(*(torch.cat(parts) for parts in zip(*(camera.tensors() for camera in cameras))))
    chosen = [balanced(scan.inside, points) for scan in scans]
    return Lesson(
        photo=Photo(pictures["rgb"] / 255, mask, camera, keypoints + noise * torch.randn_like(keypoints), bodies),
        sides=Sides(
            torch.nn.functional.normalize(pictures["normals"], dim=1),
            torch.nn.functional.normalize(pictures["back_normals"], dim=1),
            pictures["back_rgb"] / 255,
        ),
        points=torch.stack([scan.points[k] for scan, k in zip(scans, chosen)]),
        inside=torch.stack([scan.inside[k] for scan, k in zip(scans, chosen)]),
    )


def balanced(inside: torch.Tensor, count: int) -> torch.Tensor:
    """Random indices, half of them of points inside where there are so many."""
    order = torch.randperm(len(inside))
    label = inside[order] > 0
    within, beyond = order[label], order[~label]
    half = min(count // 2, len(within))
    picks = torch.cat([within[:half], beyond[: count - half]])
    if len(picks) < count:
        raise InputError(f"A person has {len(inside)} points, too few for {count}: raise points-per-person.")
    return picks
