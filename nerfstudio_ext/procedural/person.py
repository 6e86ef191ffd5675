"""A person made up from a seed: body, pose, clothes and hair that stand off the body, and colours. Metres; +z up.

Clothes and hair are offsets of the body's own mesh, so every person has the same triangles, and the body model alone
does not tell where the surface is.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Dict, Tuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_ext.human.body_model import BodyModel, anny_body
from nerfstudio_ext.human.skinning import rotation_matrix

BODY_KEYPOINTS: Dict[str, str] = {
    "pelvis": "root",
    "left_hip": "upperleg01.L",
    "right_hip": "upperleg01.R",
    "spine1": "spine04",
    "left_knee": "lowerleg01.L",
    "right_knee": "lowerleg01.R",
    "spine2": "spine03",
    "left_ankle": "foot.L",
    "right_ankle": "foot.R",
    "spine3": "spine01",
    "left_foot": "toe1-1.L",
    "right_foot": "toe1-1.R",
    "neck": "neck01",
    "left_collar": "clavicle.L",
    "right_collar": "clavicle.R",
    "head": "head",
    "left_shoulder": "upperarm01.L",
    "right_shoulder": "upperarm01.R",
    "left_elbow": "lowerarm01.L",
    "right_elbow": "lowerarm01.R",
    "left_wrist": "wrist.L",
    "right_wrist": "wrist.R",
    "left_hand": "finger3-1.L",
    "right_hand": "finger3-1.R",
}
"""The body set: the names and the order of SMPL's 24 joints, and the joint of the drawn body that stands for each."""

_TORSO = ("root", "spine", "pelvis", "breast", "clavicle", "shoulder")
_UPPER_ARM, _LOWER_ARM, _HAND = ("upperarm",), ("lowerarm",), ("wrist", "finger", "metacarpal")
_UPPER_LEG, _LOWER_LEG, _FOOT = ("upperleg",), ("lowerleg",), ("foot", "toe")
_NECK = ("neck",)
_BELOW_HEAD = (*_TORSO, *_UPPER_ARM, *_LOWER_ARM, *_HAND, *_UPPER_LEG, *_LOWER_LEG, *_FOOT, *_NECK)
SKIN = ((0.96, 0.80, 0.69), (0.87, 0.66, 0.52), (0.68, 0.46, 0.33), (0.42, 0.27, 0.19))
HAIR = ((0.12, 0.09, 0.08), (0.33, 0.20, 0.11), (0.75, 0.58, 0.30), (0.60, 0.60, 0.60), (0.55, 0.20, 0.10))


@dataclass(frozen=True)
class Person:
    """A posed person; its box is centred on the origin up to a few centimetres."""

    vertices: Float[Tensor, "vertices 3"]
    faces: Int[Tensor, "faces 3"]
    colours: Float[Tensor, "vertices 3"]
    """In [0, 1], without light."""
    keypoints: Float[Tensor, "k 3"]
    """Of a body joints inside it, in the order of `BODY_KEYPOINTS`; of a face points on it (`FACE_KEYPOINTS`)."""
    body: Float[Tensor, "vertices 3"]
    """The same vertices without clothes and hair."""


def make_person(random: np.random.Generator, pose_strength: float = 1.0) -> Person:
    """Draw everything about a person from a generator; the same state gives the same person.

    Args:
        random: Generator.
        pose_strength: Factor on the angles of all joints; it changes nothing but the pose.

    Raises:
        InputError: The packages of the extra `human` are missing.
    """
    body = anny_body(
        {
            "gender": random.uniform(0, 1),
            "age": random.uniform(0.5, 1),
            "muscle": random.uniform(0.2, 0.9),
            "weight": random.uniform(0.1, 0.9),
            "height": random.uniform(0.25, 0.7),
            "proportions": random.uniform(0.2, 0.9),
        }
    )
    outfit = Outfit(body, random)
    turns = {name: pose_strength * np.array(turn) for name, turn in _pose(random).items()}
    rotations = body.rotations({name: torch.from_numpy(turn)[None].float() for name, turn in turns.items()})
    vertices = dataclasses.replace(body, rest_vertices=outfit.vertices).pose(rotations)[0]
    naked = body.pose(rotations)[0]
    joints = [body.joint_names.index(name) for name in BODY_KEYPOINTS.values()]
    keypoints = body.pose_joints(rotations)[0, joints]
    turn = rotation_matrix(torch.tensor([0.0, 0.0, random.uniform(-math.pi, math.pi)]))
    vertices, naked, keypoints = vertices @ turn.T, naked @ turn.T, keypoints @ turn.T
    centre = (vertices.amin(0) + vertices.amax(0)) / 2 + torch.from_numpy(random.uniform(-0.04, 0.04, 3)).float()
    return Person(vertices - centre, body.faces, outfit.colours, keypoints - centre, naked - centre)


def _pose(random: np.random.Generator) -> Dict[str, Tuple[float, float, float]]:
    """Axis-angle vectors of the joints that move, about axes parallel to the world's; the body faces -y, left is +x."""

    def between(low: float, high: float) -> float:
        return float(random.uniform(low, high))

    turns = {
        "spine02": (between(-0.15, 0.3), between(-0.15, 0.15), between(-0.3, 0.3)),
        "neck01": (between(-0.1, 0.25), between(-0.1, 0.1), between(-0.4, 0.4)),
    }
    for side, sign in (("L", 1.0), ("R", -1.0)):
        turns[f"upperarm01.{side}"] = (between(-0.8, 0.8), sign * between(-0.7, 0.6), sign * between(-0.4, 0.3))
        turns[f"lowerarm01.{side}"] = (0.0, 0.0, sign * between(-1.4, 0.0))
        turns[f"upperleg01.{side}"] = (between(-0.5, 0.3), sign * between(-0.25, 0.05), 0.0)
        turns[f"lowerleg01.{side}"] = (between(0.0, 0.7), 0.0, 0.0)
    return turns


class Outfit:
    """Colours of a body at rest, and the body with clothes and hair: `colours` and `vertices` [vertices, 3]; `hair` is
    the colour of the hair."""

    def __init__(self, body: BodyModel, random: np.random.Generator) -> None:
        self._body, self._random = body, random
        self._rest = body.rest_vertices
        self._normals = _vertex_normals(self._rest, body.faces)
        self.vertices = self._rest.clone()
        self.colours = self.tone(SKIN).expand(len(self._rest), 3).clone()
        self._dress()
        self._grow_hair()

    def _dress(self) -> None:
        """Trousers, then a top over them, then shoes."""
        random = self._random
        sleeves = [(), _UPPER_ARM, (*_UPPER_ARM, *_LOWER_ARM)][random.integers(3)]
        legs = [_UPPER_LEG, (*_UPPER_LEG, *_LOWER_LEG)][random.integers(2)]
        hips = self._share(("pelvis", "root", "spine05"))
        self._wear((self._share(legs) + hips).clamp(max=1), random.uniform(0.004, 0.045))
        if random.random() < 0.25:  # a coat that covers the thighs
            sleeves = (*sleeves, *_UPPER_LEG)
        self._wear(self._share((*_TORSO, *sleeves)), random.uniform(0.004, 0.035))
        shoes = self._share(_FOOT)
        self._colour(shoes > 0.5, torch.from_numpy(random.uniform(0.05, 0.5, 3)).float())
        self._push(shoes, 0.008)

    def _wear(self, cover: Float[Tensor, "vertices"], thickness: float) -> None:
        """Cloth that stands off the body and falls in folds, with a pattern of two colours."""
        random = self._random
        inside = cover > 0.5
        soft = torch.sigmoid(16 * (cover - 0.5))
        folds = sum(torch.sin(self._phase(random.uniform(0.08, 0.35))) for _ in range(3)) / 3
        self._push(soft, thickness * (1 + 0.6 * folds))
        first, second = (torch.from_numpy(random.uniform(0.05, 0.95, 3)).float() for _ in range(2))
        kind, size = random.integers(5), random.uniform(0.1, 0.4)
        waves = [torch.sin(self._phase(size)) for _ in range(2)]
        level = [torch.zeros_like(soft), waves[0], waves[0] * waves[1], waves[0] + waves[1] - 0.8, folds][kind]
        share = torch.sigmoid(12 * level)[:, None]
        self._colour(inside, (share * first + (1 - share) * second)[inside])

    def _grow_hair(self) -> None:
        """A cap of hair on the back and the top of the head, down to the shoulders for some, none for a few."""
        random = self._random
        head = 1 - self._share(_BELOW_HEAD)
        on_head = head > 0.5
        low, high = self._rest[on_head].amin(0), self._rest[on_head].amax(0)
        back, up = ((self._rest - low) / (high - low)).unbind(-1)[1:]
        length, thickness = random.uniform(-0.6, 0.45), random.uniform(0.01, 0.05)
        self.hair = self.tone(HAIR)
        if random.random() < 0.1:
            return
        # The hairline falls from the forehead (front) to the neck or below it (back).
        line = 0.86 - (0.86 - length) * torch.sigmoid(9 * (back - 0.5))
        whole = head + self._share(_NECK)
        cover = torch.sigmoid(20 * (up - line)) * torch.sigmoid(16 * (whole - 0.5))
        outwards = torch.nn.functional.normalize(self._rest - (low + high) / 2, dim=-1)
        locks = 1 + 0.35 * torch.sin(self._phase(random.uniform(0.03, 0.1)))
        self.vertices = self.vertices + (cover * thickness * locks)[:, None] * outwards
        self._colour(cover > 0.5, self.hair)

    def _share(self, prefixes: Tuple[str, ...]) -> Float[Tensor, "vertices"]:
        """How much of each vertex moves with the joints whose names begin so."""
        joints = [k for k, name in enumerate(self._body.joint_names) if prefixes and name.startswith(prefixes)]
        return self._body.weights[:, joints].sum(1)

    def _phase(self, wavelength: float) -> Float[Tensor, "vertices"]:
        """Angles of a plane wave of this length in metres, in a random direction, on the body at rest."""
        direction = torch.from_numpy(self._random.normal(size=3)).float()
        direction = direction / direction.norm()
        return self._rest @ direction * (2 * math.pi / wavelength) + self._random.uniform(0, 2 * math.pi)

    def _push(self, share: Tensor, distance: float | Tensor) -> None:
        self.vertices = self.vertices + (share * distance)[:, None] * self._normals

    def _colour(self, where: Tensor, colour: Tensor) -> None:
        self.colours[where] = colour

    def tone(self, tones: Tuple[Tuple[float, float, float], ...]) -> Float[Tensor, "3"]:
        """One of a few natural colours, a little lighter or darker."""
        tone = torch.tensor(tones[self._random.integers(len(tones))])
        return (tone * float(self._random.uniform(0.85, 1.15))).clamp(0, 1)


def _vertex_normals(vertices: Tensor, faces: Tensor) -> Float[Tensor, "vertices 3"]:
    corners = vertices[faces]
    across = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = torch.zeros_like(vertices).index_add(0, faces.flatten(), across.repeat_interleave(3, dim=0))
    return torch.nn.functional.normalize(total, dim=-1)
