"""How close a person's surface is to the true one, by the protocol of the published comparisons on CAPE (ICON, CVPR
2022, section 4.1): distances between points and surfaces both ways, and pictures of normals from four sides."""

import math
from dataclasses import asdict, dataclass
from typing import Dict, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_ext.procedural.casting import MeshCaster
from nerfstudio_ext.surface.metrics import sample_mesh

POINTS = 10_000
"""Drawn from each surface; the published 1,000 leave a noise of a few hundredths of a centimetre."""
HEIGHT, UNIT = 1.8, 1.024
"""Metres that the published tables scale people to, and metres in their unit, a hundredth of which they call cm."""
FILL = 0.88
"""Share of the pictures of normals that the person's height takes."""
SIZE = 256
"""Side of these pictures in pixels."""
SKIN = 0.001
"""Metres off a surface from where it is asked whether something else encloses it."""


@dataclass(frozen=True)
class PersonScores:
    """Nothing is aligned: the photographs are calibrated, or the person's scale is given."""

    chamfer_cm: float
    """Mean of both directions, true centimetres."""
    p2s_cm: float
    """From the true surface to ours."""
    nc: float
    """Squared difference of pictures of normals ((n + 1) / 2, black beside the person), summed over channels, mean over
    pixels, summed over four sides."""
    chamfer_official: float
    """In the unit of the published tables, as if the person were 1.80 m tall."""
    p2s_official: float

    def as_dict(self) -> Dict[str, float]:
        return asdict(self)


def person_scores(
    verts: Float[np.ndarray, "verts 3"],
    faces: Int[np.ndarray, "faces 3"],
    true_verts: Float[np.ndarray, "others 3"],
    true_faces: Int[np.ndarray, "triangles 3"],
) -> PersonScores:
    """Score a closed mesh of a person, metres, +z up.

    Args:
        verts: To judge.
        faces: Triangles, outwards.
        true_verts: Of the true surface; what lies inside of it, as eyes in a head, does not count.
        true_faces: Triangles, outwards.
    """
    caster, truth = (_caster(*mesh) for mesh in ((verts, faces), (true_verts, true_faces)))
    own = sample_mesh(verts, faces, POINTS)[0]
    points, normals = sample_mesh(true_verts, true_faces, POINTS, seed=1)
    points = points[~truth.contains(points + SKIN * normals)]
    forth, back = _distance(points, verts, faces), _distance(own, true_verts, true_faces)
    chamfer = (forth + back) / 2
    low, high = true_verts.min(0), true_verts.max(0)
    official = HEIGHT / float(high[2] - low[2]) / UNIT
    frame = (torch.from_numpy((low + high) / 2).float(), float(high[2] - low[2]) / 2 / FILL)
    nc = sum(
        float((_normals(caster, turn, *frame) - _normals(truth, turn, *frame)).square().sum(-1).mean())
        for turn in range(4)
    )
    return PersonScores(100 * chamfer, 100 * forth, nc, 100 * chamfer * official, 100 * forth * official)


def _caster(verts: np.ndarray, faces: np.ndarray) -> MeshCaster:
    vertices = torch.from_numpy(np.asarray(verts)).float()
    return MeshCaster(
        vertices, torch.from_numpy(np.asarray(faces).astype(np.int64)), torch.zeros_like(vertices), np.ones(3)
    )


def _distance(points: np.ndarray, verts: np.ndarray, faces: np.ndarray) -> float:
    """Mean distance of points from a surface."""
    import open3d

    scene = open3d.t.geometry.RaycastingScene(nthreads=torch.get_num_threads())
    scene.add_triangles(
        *(open3d.core.Tensor.from_numpy(x) for x in (verts.astype(np.float32), faces.astype(np.uint32)))
    )
    return float(scene.compute_distance(open3d.core.Tensor.from_numpy(points.astype(np.float32))).numpy().mean())


def _normals(caster: MeshCaster, turn: int, middle: Float[Tensor, "3"], half: float) -> Float[Tensor, "pixels 3"]:
    """Picture of a mesh's normals in the frame of an orthographic camera, from the given quarter about +z."""
    angle = turn * math.pi / 2
    ahead = torch.tensor([-math.cos(angle), -math.sin(angle), 0.0])
    right = torch.tensor([-math.sin(angle), math.cos(angle), 0.0])
    up = torch.tensor([0.0, 0.0, 1.0])
    axis = (torch.arange(SIZE) + 0.5) * (2 * half / SIZE) - half
    v, u = torch.meshgrid(-axis, axis, indexing="ij")
    origins = middle + u.reshape(-1, 1) * right + v.reshape(-1, 1) * up - 4 * half * ahead
    seen = caster.first(origins, ahead.expand_as(origins))
    local = seen.normals @ torch.stack([right, up, -ahead]).T
    return (local + 1) / 2 * seen.mask[:, None]


def mean_scores(found: Sequence[PersonScores]) -> Dict[str, float]:
    """Means over people."""
    rows = [scores.as_dict() for scores in found]
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
