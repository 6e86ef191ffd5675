"""Many people that the suite draws itself, each in a pose of its own within a ring of cameras of its own, or faces
before arcs of cameras, with exact pictures, masks, depth, normals, keypoints and meshes. Drawn when they are first
asked for; metres, +z up."""

import hashlib
import io
import json
import math
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Dict, List, Literal, Tuple

import numpy as np
import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.host import cache_dir
from nerfstudio_ext.human.body_model import anny_body
from nerfstudio_ext.human.body_surface import BodySurface
from nerfstudio_ext.human.subject import Subject, SubjectStore
from nerfstudio_ext.procedural.casting import MeshCaster
from nerfstudio_ext.procedural.face import FACE_KEYPOINTS, make_face
from nerfstudio_ext.procedural.person import BODY_KEYPOINTS, Person, make_person
from nerfstudio_ext.procedural.rigs import look_at_origin, square_cameras

VERSION = 1
"""Of what is drawn; raise it when the same options give other pictures."""
FACE_VERSION = 1
"""Of faces; raise it when only they change."""
KEPT = 8
"""People whose pictures stay in memory."""

Split = Literal["train", "test"]
Subjects = Literal["bodies", "faces"]


@dataclass(frozen=True)
class _Rig:
    """Where the cameras around a kind of subject stand, and which kind it is."""

    keypoints: Tuple[str, ...]
    radius: float
    """Metres; each person's cameras stand up to a tenth farther away."""
    field_of_view: float
    """Degrees."""
    arc: float
    """Degrees over which the cameras are spread, about the direction that the subject faces; 360 is a ring."""
    rise: Tuple[float, float]
    """Degrees above the horizon, at least and at most; one height for a ring, one for each camera on an arc."""


RIGS: Dict[Subjects, _Rig] = {
    "bodies": _Rig(tuple(BODY_KEYPOINTS), 2.8, 48, 360, (-5, 20)),
    "faces": _Rig(tuple(FACE_KEYPOINTS), 0.9, 25, 150, (-8, 25)),
}


@dataclass(frozen=True)
class PeopleOptions:
    """What decides how a drawn person looks, beside its number."""

    cameras: int = 8
    size: int = 128
    seed: int = 0
    pose_strength: float = 1.0
    """Factor on the angles of all joints: below 1 people stand more quietly, above 1 poses are stronger."""
    subjects: Subjects = "bodies"
    """Whole people within a ring of cameras, or heads with facial expressions before an arc of cameras."""


class ProceduralPeople(SubjectStore):
    """People to train on, then people to test with, who are never the same; how many there are changes none of them.

    Args:
        options: Cameras, size of the pictures, seed.
        train: How many to train on, numbered from 0.
        test: How many to test with, numbered from `train`.

    Raises:
        InputError: The numbers describe no scene.
    """

    def __init__(self, options: PeopleOptions, train: int, test: int) -> None:
        if min(train, test) < 1 or options.cameras < 2 or options.size < 8:
            raise InputError(
                "Drawn people need one to train on, one to test with, two cameras and 8 pixels at least, not "
                f"{train} and {test} people, {options.cameras} cameras and {options.size} pixels."
            )
        self.options, self.train, self.test = options, train, test
        self._kind = RIGS[options.subjects]
        self.keypoint_names = self._kind.keypoints
        settings = asdict(options)
        strength, subjects = settings.pop("pose_strength"), settings.pop("subjects")
        # What is usual adds nothing, so that people who were drawn before there were others are found again.
        parts = [VERSION, settings] if strength == 1 else [VERSION, settings, strength]
        parts += [] if subjects == "bodies" else [FACE_VERSION, subjects]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        self.folder = cache_dir() / "people" / key
        self._read = lru_cache(KEPT)(self._read_subject)

    def __len__(self) -> int:
        return self.train + self.test

    def name(self, index: int) -> str:
        split, number = self._place(index)
        return f"{split}_{number:04d}"

    def cameras(self, index: int) -> Cameras:
        return square_cameras(self._rig(index)[0], self._focal, self.options.size)

    def subject(self, index: int) -> Subject:
        return self._read(index)

    def mesh(self, index: int) -> Tuple[Float[Tensor, "vertices 3"], Int[Tensor, "faces 3"]]:
        """The exact surface of a person, clothes and hair included; eyes and mouth are meshes inside the head."""
        with np.load(self._drawn(index)) as archive:
            return torch.from_numpy(archive["vertices"]), torch.from_numpy(archive["faces"]).long()

    def person(self, index: int) -> Tuple[Person, Float[np.ndarray, "3"]]:
        """A person and the direction towards its light, drawn anew."""
        random = self._rig(index)[1]
        if self.options.subjects == "faces":
            face = make_face(random, self.options.pose_strength)
            # From before the face: from behind, all of it would lie in the shade.
            return face, np.array([random.uniform(-1, 1), random.uniform(-1, 0), random.uniform(0.3, 1)])
        return make_person(random, self.options.pose_strength), np.array(
            [*random.uniform(-1, 1, 2), random.uniform(0.3, 1)]
        )

    def body(self, index: int) -> BodySurface:
        """The person without clothes and hair; parts are where the skin is on the average person at rest.

        Raises:
            InputError: The people are faces.
        """
        if self.options.subjects == "faces":
            raise InputError("Drawn faces have no body: draw --subjects bodies.")
        person = self.person(index)[0]
        return BodySurface(person.body, person.faces, body_parts())

    def _rig(self, index: int) -> Tuple[Float[Tensor, "views 3 4"], np.random.Generator]:
        """Poses of a person's cameras, and the generator from which the person itself is drawn."""
        split, number = self._place(index)
        random = np.random.default_rng([self.options.seed, ("train", "test").index(split), number])
        count, kind = self.options.cameras, self._kind
        if kind.arc == 360:
            turns = 2 * math.pi * (np.arange(count) + random.uniform()) / count
            up = np.full(count, np.radians(random.uniform(*kind.rise)))
        else:
            step = np.radians(kind.arc) / (count - 1)
            turns = (np.arange(count) - (count - 1) / 2 + random.uniform(-0.25, 0.25, count)) * step - math.pi / 2
            up = np.radians(random.uniform(*kind.rise, count))
        radius = kind.radius * random.uniform(0.97, 1.1)
        flat = np.stack([np.cos(turns), np.sin(turns)], axis=1) * np.cos(up)[:, None]
        positions = radius * np.concatenate([flat, np.sin(up)[:, None]], axis=1)
        return look_at_origin(torch.from_numpy(positions).float()), random

    @property
    def _focal(self) -> float:
        return 0.5 * self.options.size / math.tan(math.radians(self._kind.field_of_view) / 2)

    def _place(self, index: int) -> Tuple[Split, int]:
        """Split of a person, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} people, and no number {index}")
        return ("train", index) if index < self.train else ("test", index - self.train)

    def undrawn(self) -> List[int]:
        """People whom nobody has asked for yet."""
        return [index for index in range(len(self)) if not self._path(index).is_file()]

    def keep(self, index: int, drawing: bytes) -> None:
        """Put a person's drawing where it is looked for."""
        path = self._path(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may draw the same person: each writes a file of its own, and the last rename wins.
        partial = path.with_suffix(f".{os.getpid()}.partial.npz")
        partial.write_bytes(drawing)
        partial.replace(path)

    def _path(self, index: int) -> Path:
        return self.folder / f"{self.name(index)}.npz"

    def _drawn(self, index: int) -> Path:
        """File of a person, which is drawn if nobody has asked for it yet."""
        path = self._path(index)
        if not path.is_file():
            self.keep(index, self.draw(index))
        return path

    def draw(self, index: int) -> bytes:
        """A person's pictures and mesh, as the file that they are kept in.

        Raises:
            InputError: The packages of the extra `human` are missing.
        """
        poses, size = self._rig(index)[0], self.options.size
        person, light = self.person(index)
        caster = MeshCaster(person.vertices, person.faces, person.colours, light)
        views = [caster.view(pose, self._focal, size) for pose in poses]
        rgb, mask, depth, normals = (
            torch.stack([getattr(view, name) for view in views]) for name in ("rgb", "mask", "depth", "normals")
        )
        file = io.BytesIO()
        np.savez_compressed(
            file,
            rgb=(rgb * 255).round().to(torch.uint8).numpy(),
            mask=mask.numpy(),
            depth=depth.numpy(),
            normals=(normals * 127).round().to(torch.int8).numpy(),
            keypoints=person.keypoints.numpy(),
            vertices=person.vertices.numpy(),
            faces=person.faces.numpy().astype(np.int32),
        )
        return file.getvalue()

    def _read_subject(self, index: int) -> Subject:
        with np.load(self._drawn(index)) as archive:
            names = ("rgb", "mask", "depth", "normals", "keypoints")
            arrays = {key: torch.from_numpy(archive[key]) for key in names}
        poses, size = self._rig(index)[0], self.options.size
        return Subject(
            name=self.name(index),
            rgb=arrays["rgb"],
            mask=arrays["mask"],
            poses=poses,
            intrinsics=torch.tensor([self._focal, self._focal, size / 2, size / 2]).expand(len(poses), 4),
            keypoints=arrays["keypoints"],
            depth=arrays["depth"],
            normals=torch.nn.functional.normalize(arrays["normals"].float(), dim=-1),
        )


@lru_cache(1)
def body_parts() -> Float[Tensor, "vertices 3"]:
    """Where the vertices of drawn bodies are on the average person at rest, from -1 to 1 along the longest axis."""
    rest = anny_body({}).rest_vertices
    low, high = rest.amin(0), rest.amax(0)
    return (2 * rest - low - high) / (high - low).max()
