"""`ns-ext data ...`: scenes with exact ground truth, written to disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Optional

import tyro


@dataclass
class Make:
    """Draw a procedural object and write it in IDR layout, with depth, normals and the true mesh beside it."""

    object: Annotated[str, tyro.conf.Positional]
    """What to draw: spheres, torus-box, head, vase, lattice or coral; or a mesh file (.obj, .ply, .glb, .stl, .off),
    which is brought into the unit sphere."""
    folder: Annotated[Path, tyro.conf.Positional]
    """Where to write; must be empty or new."""
    views: int = 40
    """Cameras around the object; of a camera path at most so many, evenly chosen."""
    size: int = 128
    """Width and height of the pictures in pixels; of a camera path's the longer side."""
    rig: Literal["rings", "ring", "hemisphere", "forward", "path"] = "rings"
    """Where the cameras stand: rings (one 10 and one 40 degrees up), ring (20 degrees up), hemisphere, forward (before
    the object), or path (camera-path)."""
    camera_path: Optional[Path] = None
    """For the rig path: cameras as nerfstudio's viewer saves them (.json), the object inside the unit sphere."""
    radius: float = 2.6
    """Distance of the cameras from the object's centre, except of those of a camera path."""
    background: bool = True
    """Draw a coloured background far away; otherwise it is white."""
    seed: int = 0
    """Decides the background."""
    up: Literal["z", "y"] = "z"
    """Axis of a mesh file that points up."""

    def main(self) -> None:
        from nerfstudio_ext.cli.folders import require_empty
        from nerfstudio_ext.export.object_scene import write_object_scene
        from nerfstudio_ext.procedural.object_scene import ObjectScene, ObjectSceneOptions

        require_empty(self.folder)
        options = ObjectSceneOptions(
            self.object,
            self.views,
            self.size,
            self.rig,
            self.radius,
            self.background,
            self.seed,
            self.up,
            self.camera_path,
        )
        scene = ObjectScene(options)
        write_object_scene(scene, self.folder)
        print(f"{len(scene.poses)} views of '{self.object}': {self.folder}")
        print(
            f"train on it with:  ns-train coco-inr-tiny idr-data --data {self.folder} "
            f"--num-views {max(1, min(6, len(scene.poses) - 1))} --max-test-views 8"
        )


@dataclass
class Person:
    """Draw somebody whom no training has seen and write photos, masks, cameras and keypoints, as one's own would be."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Where to write; must be empty or new."""
    number: int = 0
    """Which of the people that are never trained on."""
    views: str = "8"
    """Photos around the person: a number, or indices of the ring's cameras as in 0,2,5."""
    cameras: int = 8
    """Cameras on the ring, or on the arc before a face."""
    size: int = 256
    """Width and height of the photos in pixels."""
    seed: int = 0
    """Decides who the people are."""
    subjects: Literal["bodies", "faces"] = "bodies"
    """A whole person, or a head with a facial expression, for networks that were trained on faces."""

    def main(self) -> None:
        from dataparsers._people import source_views
        from nerfstudio_ext.cli.folders import require_empty
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.human.photos import write_photos
        from nerfstudio_ext.procedural.people import PeopleOptions, ProceduralPeople

        require_empty(self.folder)
        if self.number < 0:
            raise InputError(f"--number {self.number}: people are numbered from 0.")
        chosen = source_views(self.views, self.cameras, "--views", ring=self.subjects == "bodies")
        options = PeopleOptions(self.cameras, self.size, self.seed, subjects=self.subjects)
        people = ProceduralPeople(options, 1, self.number + 1)
        write_photos(people.subject(self.number + 1), chosen, people.keypoint_names, self.folder)
        print(f"{len(chosen)} photos of person {self.number}: {self.folder}")
        # The network that comes along knows bodies; one photo more than the sources is for ns-eval.
        run = "default" if self.subjects == "bodies" else "RUN"
        sources = f" --sources {min(3, len(chosen) - 1)}" if len(chosen) > 2 else ""
        print(f"look at new views of it with:  ns-ext keypoints condition {run} --photos {self.folder}{sources}")


@dataclass
class People:
    """Draw the people of procedural-people-data ahead of a training, which draws whom it needs one after the other.

    They go to the user's cache, where a training with the same options finds them. Whoever is there already stays.
    """

    people: int = 80
    """People to train on."""
    test_people: int = 8
    """Other people, whom training never sees."""
    cameras: int = 8
    """Cameras on the ring around each person, or on the arc before a face."""
    size: int = 128
    """Width and height of the pictures in pixels."""
    seed: int = 0
    """Decides who the people are."""
    subjects: Literal["bodies", "faces"] = "bodies"
    """Whole people, or heads with facial expressions."""
    workers: int = 1
    """Processes of this machine that draw."""
    ray: bool = False
    """Draw each person as a task of a Ray cluster (the local machine where there is none) instead."""

    def main(self) -> None:
        from rich.progress import track

        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.procedural.drawing import draw_ahead
        from nerfstudio_ext.procedural.people import PeopleOptions, ProceduralPeople

        if self.workers < 1:
            raise InputError(f"--workers {self.workers}: somebody has to draw, 1 at least.")
        options = PeopleOptions(self.cameras, self.size, self.seed, subjects=self.subjects)
        people = ProceduralPeople(options, self.people, self.test_people)
        missing = len(people.undrawn())
        for _ in track(draw_ahead(people, self.workers, self.ray), "People", total=missing, transient=True):
            pass
        print(f"{missing} of {len(people)} people drawn, the others were there: {people.folder}")
