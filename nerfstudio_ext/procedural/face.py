"""The head of a person made up from a seed, with a facial expression: a close-up. Metres; +z up; it looks along -y.

Head and neck of the free body model; the hole where the neck ends is closed, so that the mesh is a solid. Places on
the face are named by where they are on the average face at rest, which is the same mesh.
"""

import dataclasses
import math
from functools import lru_cache
from typing import Dict, Tuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_model import FACE_SHAPES, BodyModel, anny_face, anny_face_regions
from nerfstudio_ext.procedural.person import Outfit, Person

VERTICES = 13718
"""Of the body model that the numbers below belong to."""
FACE_KEYPOINTS: Dict[str, int] = {
    "left_eye_outer": 7765,
    "left_eye_inner": 7780,
    "right_eye_inner": 1104,
    "right_eye_outer": 1089,
    "nose_tip": 5038,
    "left_nostril": 11728,
    "right_nostril": 5130,
    "left_mouth_corner": 7256,
    "right_mouth_corner": 527,
    "upper_lip": 455,
    "lower_lip": 495,
    "chin": 733,
    "forehead": 5304,
}
"""The face set, and the vertex that is each of its points; left is the person's own. The paper's set is unpublished."""

ON_BOTH_SIDES = (
    "browDown", "browOuterUp", "cheekSquint", "eyeBlink", "eyeSquint", "eyeWide", "mouthDimple", "mouthFrown",
    "mouthLowerDown", "mouthPress", "mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer",
)  # fmt: skip
IN_THE_MIDDLE = (
    "browInnerUp", "cheekPuff", "jawForward", "jawLeft", "jawOpen", "jawOpen", "jawRight", "mouthFunnel", "mouthLeft",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
)  # fmt: skip
"""Facial actions that expressions are made of. Those that mean something only with an open mouth are left out."""
IRIS = ((0.25, 0.15, 0.08), (0.40, 0.27, 0.12), (0.30, 0.45, 0.60), (0.35, 0.45, 0.25), (0.45, 0.50, 0.52))


def make_face(random: np.random.Generator, pose_strength: float = 1.0) -> Person:
    """Draw everything about a head from a generator; the same state gives the same one.

    Args:
        random: Generator.
        pose_strength: Factor on the angles by which the neck turns.

    Raises:
        InputError: The packages of the extra `human` are missing, or anny's mesh is another one.
    """
    phenotype = {
        "gender": random.uniform(0, 1),
        "age": random.uniform(0.45, 1),
        "muscle": random.uniform(0.2, 0.9),
        "weight": random.uniform(0.1, 0.9),
    }
    shape = {name: random.uniform(-0.6, 0.6) for name in FACE_SHAPES}
    body = anny_face(phenotype, shape, _expression(random))
    if len(body.rest_vertices) != VERTICES:
        raise InputError(
            f"The face set is for a mesh of {VERTICES} vertices, but this version of anny has "
            f"{len(body.rest_vertices)}: install the one in requirements.lock."
        )
    outfit = Outfit(body, random)
    _Makeup(outfit, random).apply()
    turns = {
        "neck01": pose_strength * random.uniform(-0.15, 0.15, 3),
        "head": pose_strength * random.uniform(-0.25, 0.25, 3),
    }
    rotations = body.rotations({name: torch.from_numpy(turn)[None].float() for name, turn in turns.items()})
    kept, faces = _head(body)
    rim = _rim(faces)

    def solid(rest: Float[Tensor, "vertices 3"]) -> Float[Tensor, "more 3"]:
        cut = rest.clone()
        cut[kept[rim[:, 0]]] = _lowered(rest[kept[rim[:, 0]]])
        return _with_lid(dataclasses.replace(body, rest_vertices=cut).pose(rotations)[0, kept], rim)

    vertices, naked = solid(outfit.vertices), solid(body.rest_vertices)
    lid = torch.cat([rim.flip(1), torch.full_like(rim[:, :1], len(kept))], dim=1)
    keypoints = vertices[torch.searchsorted(kept, torch.tensor(list(FACE_KEYPOINTS.values())))]
    centre = (vertices.amin(0) + vertices.amax(0)) / 2 + torch.from_numpy(random.uniform(-0.01, 0.01, 3)).float()
    colours = _with_lid(outfit.colours[kept], rim)
    return Person(vertices - centre, torch.cat([faces, lid]), colours, keypoints - centre, naked - centre)


def _expression(random: np.random.Generator) -> Dict[str, float]:
    """A few facial actions, never quite the same on both sides, and a gaze."""
    actions: Dict[str, float] = {}
    for name in random.choice(ON_BOTH_SIDES, random.integers(1, 5), replace=False):
        strength = random.uniform(0.3, 1)
        for side in ("Left", "Right"):
            actions[name + side] = strength * random.uniform(0.6, 1)
    for name in random.choice(IN_THE_MIDDLE, random.integers(0, 3), replace=False):
        actions[str(name)] = random.uniform(0.3, 1)
    across, up = random.uniform(-0.8, 0.8, 2)
    for side, towards in (("Left", across), ("Right", -across)):
        actions[f"eyeLook{'Out' if towards > 0 else 'In'}{side}"] = abs(towards)
        actions[f"eyeLook{'Up' if up > 0 else 'Down'}{side}"] = abs(up)
    return actions


@lru_cache(1)
def _average() -> Tuple[Float[Tensor, "vertices 3"], Dict[str, Bool[Tensor, "vertices"]]]:
    """The average face at rest in centimetres about the point between the eyes, and its parts."""
    places = 100 * anny_face({}, {}, {}).rest_vertices
    eyes = [FACE_KEYPOINTS[name] for name in ("left_eye_outer", "right_eye_outer")]
    return places - places[eyes].mean(0), anny_face_regions()


class _Makeup:
    """What is painted on a face and grows on it."""

    def __init__(self, outfit: Outfit, random: np.random.Generator) -> None:
        self._outfit, self._random = outfit, random
        self._places, self._parts = _average()

    def apply(self) -> None:
        """Paint and shape the outfit's head."""
        random, outfit, (x, y, z) = self._random, self._outfit, self._places.unbind(-1)
        skin = outfit.colours[FACE_KEYPOINTS["nose_tip"]].clone()
        front = torch.sigmoid(2 * (4 - y))
        # Redder cheeks and nose, lighter or darker places.
        cheeks = torch.exp(-((x.abs() - 3.6).square() + (z + 3.2).square()) / 2.5) + torch.exp(
            -(x.square() + (z + 3.6).square()) / 1.2
        )
        self._tint(cheeks * front * random.uniform(0, 0.5), skin * torch.tensor([1.0, 0.72, 0.70]))
        self._tint(0.5 + 0.5 * torch.sin(self._wave(random.uniform(1.5, 4))), skin * random.uniform(0.88, 1.0), 0.5)
        if random.random() < 0.3:  # freckles
            spots = torch.sin(self._wave(0.9)) * torch.sin(self._wave(0.9)) * torch.sin(self._wave(0.9))
            self._tint((spots > 0.35) * front, skin * 0.7, 0.4)
        if random.random() < 0.35:
            self._grow_beard()
        self._brows()
        lips = torch.lerp(skin * torch.tensor([0.9, 0.6, 0.6]), torch.tensor([0.6, 0.15, 0.2]), random.uniform(0, 0.7))
        self._tint(self._on_lips(), lips)
        outfit.colours[self._parts["sockets"] & (y > -1)] = skin * 0.75
        outfit.colours[self._parts["mouth"]] = torch.tensor([0.30, 0.08, 0.08])
        outfit.colours[self._parts["tongue"]] = torch.tensor([0.75, 0.35, 0.35])
        self._eyes()

    def _on_lips(self) -> Float[Tensor, "vertices"]:
        x, y, z = self._places.unbind(-1)
        up = z + 6.65
        height = torch.where(up > 0, 1.1, 1.3)
        inside = 1 - (x / 2.6).square() - (up / height).square()
        return torch.sigmoid(12 * inside) * (y < -0.5)

    def _brows(self) -> None:
        random, (x, y, z) = self._random, self._places.unbind(-1)
        arch, width = random.uniform(0.1, 0.5), random.uniform(0.25, 0.55)
        line = 1.75 + random.uniform(-0.1, 0.25) + arch * (1 - ((x.abs() - 3.4) / 2).square())
        inside = 1 - ((z - line) / width).square() - ((x.abs() - 3.1) / 2.1).square()
        self._tint(torch.sigmoid(6 * inside) * (y < 0.5), self._outfit.hair * float(random.uniform(0.6, 1.0)))

    def _grow_beard(self) -> None:
        """Hair on chin and jaw, for some up to the moustache, from stubble to 2 cm."""
        random, (y, z) = self._random, self._places[:, 1:].unbind(-1)
        up = random.choice([-5.2, -7.9]) + 0.35 * (y + 2.0).clamp(min=0)
        cover = torch.sigmoid(5 * (up - z)) * torch.sigmoid(3 * (z + 12.5)) * torch.sigmoid(2 * (6.5 - y))
        cover = cover * (1 - self._on_lips()) * ~(self._parts["mouth"] | self._parts["tongue"])
        length = random.uniform(0.0, 0.02)
        locks = 1 + 0.4 * torch.sin(self._wave(random.uniform(0.6, 2)))
        outwards = torch.nn.functional.normalize(self._places - torch.tensor([0.0, 4.0, -4.0]), dim=-1)
        self._outfit.vertices = self._outfit.vertices + (cover * length * locks)[:, None] * outwards
        self._tint(cover, self._outfit.hair, random.uniform(0.5, 0.95))

    def _eyes(self) -> None:
        """White, iris and pupil by the angle from the middle of the eyeball at rest."""
        iris = self._outfit.tone(IRIS)
        for side in (-1.0, 1.0):
            ball = self._parts["eyes"] & (side * self._places[:, 0] > 0)
            places = self._places[ball]
            away = torch.nn.functional.normalize(places - (places.amin(0) + places.amax(0)) / 2, dim=-1)
            angle = torch.rad2deg(torch.arccos(-away[:, 1].clamp(-1, 1)))[:, None]
            white = torch.tensor([0.93, 0.92, 0.90])
            colours = torch.where(angle < 15.5, 0.15 * iris, torch.where(angle < 32, iris, white))
            self._outfit.colours[ball] = colours

    def _wave(self, centimetres: float) -> Float[Tensor, "vertices"]:
        direction = torch.from_numpy(self._random.normal(size=3)).float()
        phase = self._random.uniform(0, 2 * math.pi)
        return self._places @ (direction / direction.norm()) * (2 * math.pi / centimetres) + phase

    def _tint(self, share: Tensor, colour: Tensor, most: float = 1.0) -> None:
        share = most * share.float().clamp(0, 1)[:, None]
        self._outfit.colours = ((1 - share) * self._outfit.colours + share * colour).clamp(0, 1)


def _head(body: BodyModel) -> Tuple[Int[Tensor, "kept"], Int[Tensor, "faces 3"]]:
    """Vertices of head and neck, and the triangles between them, numbered within."""
    joints = [k for k, name in enumerate(body.joint_names) if name.startswith(("head", "neck", "eye"))]
    inside = body.weights[:, joints].sum(1) > 0.5
    faces = body.faces[inside[body.faces].all(1)]
    kept = torch.unique(faces)
    return kept, torch.searchsorted(kept, faces)


def _rim(faces: Int[Tensor, "faces 3"]) -> Int[Tensor, "edges 2"]:
    """Edges that belong to one triangle alone, in its sense of rotation; each vertex of the rim begins one."""
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, which, count = torch.unique(edges.sort(1).values, dim=0, return_inverse=True, return_counts=True)
    return edges[count[which] == 1]


def _lowered(rim: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """The rim moved down onto a plane, so that the neck ends in a straight cut."""
    flat = torch.cat([rim[:, :2], torch.ones_like(rim[:, :1])], dim=1)
    plane = flat @ torch.linalg.lstsq(flat, rim[:, 2:]).solution
    return torch.cat([rim[:, :2], plane + (rim[:, 2:] - plane).amin()], dim=1)


def _with_lid(values: Float[Tensor, "kept 3"], rim: Int[Tensor, "edges 2"]) -> Float[Tensor, "more 3"]:
    """Values of the vertices, and the mean of those on the rim for the middle of the lid."""
    return torch.cat([values, values[rim[:, 0]].mean(0, keepdim=True)])
