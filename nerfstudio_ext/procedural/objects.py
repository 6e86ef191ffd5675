"""Textured objects as signed distance functions: closed forms, so that geometry, normals and pictures are exact.

World frame: +z is up, every object lies inside the unit sphere. `p` is a batch of points, `n` of unit normals.
"""

import math
from dataclasses import dataclass
from typing import Callable, Dict, Tuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError

LIGHT = torch.nn.functional.normalize(torch.tensor([0.4, -0.5, 0.8]), dim=0)
"""Direction to the sun; the rest of the light comes evenly from everywhere."""
AMBIENT = 0.55

Points = Float[Tensor, "points 3"]
Values = Float[Tensor, "points"]


@dataclass(frozen=True)
class SdfObject:
    """One object: signed distance (negative inside), albedo in [0, 1], and how far a distance may be trusted."""

    sdf: Callable[[Points], Values]
    albedo: Callable[[Points], Points]
    step: float = 1.0
    """Share of the value that is surely free of the surface: 1 over the Lipschitz constant."""

    def normals(self, points: Points) -> Points:
        """Unit normals at points, by differentiation."""
        with torch.enable_grad():
            points = points.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.sdf(points).sum(), points)
        return torch.nn.functional.normalize(gradient, dim=-1)

    def shade(self, points: Points, normals: Points) -> Points:
        """Colour of surface points: Lambert's law under one sun, no shadows; the same from every side."""
        sun = (normals @ LIGHT.to(points)).clamp(min=0)[:, None]
        return (self.albedo(points) * (AMBIENT + (1 - AMBIENT) * sun)).clamp(0, 1)

    def mesh(self, resolution: int = 128) -> Tuple[Float[np.ndarray, "verts 3"], Int[np.ndarray, "faces 3"]]:
        """Reference surface by marching cubes in [-1.1, 1.1]^3, vertices moved onto the exact surface."""
        from skimage.measure import marching_cubes

        axis = torch.linspace(-1.1, 1.1, resolution)
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
        volume = torch.cat([self.sdf(part) for part in grid.split(1 << 18)]).reshape((resolution,) * 3)
        verts, faces, _, _ = marching_cubes(volume.numpy(), 0.0)
        points = torch.from_numpy(verts.astype(np.float32)) * (2.2 / (resolution - 1)) - 1.1
        for _ in range(3):
            points = points - (self.sdf(points) * self.step)[:, None] * self.normals(points)
        return points.numpy(), faces


def get_object(name: str) -> SdfObject:
    """The object of that name.

    Raises:
        InputError: There is none.
    """
    if name not in OBJECTS:
        raise InputError(f"There is no procedural object '{name}': choose one of {', '.join(OBJECTS)}.")
    return OBJECTS[name]


def _smooth_min(a: Values, b: Values, width: float) -> Values:
    h = (width - (a - b).abs()).clamp(min=0) / width
    return torch.minimum(a, b) - h * h * (width / 4)


def _box(p: Points, half: Tuple[float, float, float], rounding: float) -> Values:
    q = p.abs() - torch.tensor(half).to(p)
    return q.clamp(min=0).norm(dim=-1) + q.amax(dim=-1).clamp(max=0) - rounding


def _torus(p: Points, radius: float, tube: float) -> Values:
    """Torus about the z axis."""
    return torch.hypot(p[:, :2].norm(dim=-1) - radius, p[:, 2]) - tube


def _capsule(p: Points, start: Tuple[float, float, float], end: Tuple[float, float, float], radius: float) -> Values:
    a, b = torch.tensor(start).to(p), torch.tensor(end).to(p)
    along = ((p - a) @ (b - a) / (b - a).square().sum()).clamp(0, 1)
    return (p - a - along[:, None] * (b - a)).norm(dim=-1) - radius


def _waves(p: Points, base: Tuple[float, float, float], rate: float, depth: float = 0.3) -> Points:
    """Albedo that changes smoothly and differently in each channel."""
    x, y, z = p.unbind(-1)
    swing = torch.stack(
        [
            torch.sin(rate * (x + 0.6 * z) + 0.4) * torch.cos(rate * 0.7 * y),
            torch.sin(rate * (y - 0.5 * x) + 1.7) * torch.cos(rate * 0.8 * z),
            torch.sin(rate * (z + 0.7 * y) + 2.9) * torch.cos(rate * 0.9 * x),
        ],
        dim=-1,
    )
    return (torch.tensor(base).to(p) + depth * swing).clamp(0.03, 1)


def _spheres(p: Points) -> Values:
    parts = [((0.0, 0.0, -0.25), 0.5), ((0.35, 0.1, 0.25), 0.33), ((-0.3, -0.25, 0.3), 0.3), ((-0.1, 0.4, 0.1), 0.28)]
    result = None
    for centre, radius in parts:
        part = (p - torch.tensor(centre).to(p)).norm(dim=-1) - radius
        result = part if result is None else _smooth_min(result, part, 0.15)
    assert result is not None
    return result


def _torus_box(p: Points) -> Values:
    box = _box(p - torch.tensor([0.0, 0.0, -0.42]).to(p), (0.42, 0.42, 0.16), 0.06)
    turned = torch.stack([p[:, 0], p[:, 2] - 0.2, p[:, 1]], dim=-1)
    return torch.minimum(box, _torus(turned, 0.42, 0.16))


def _head(p: Points) -> Values:
    """A bumpy head: skull, jaw, nose, ears, neck; it faces -y."""
    skull = (p / torch.tensor([0.52, 0.62, 0.66]).to(p)).norm(dim=-1)
    skull = (skull - 1) * 0.52
    jaw = (p - torch.tensor([0.0, -0.2, -0.4]).to(p)).norm(dim=-1) - 0.32
    head = _smooth_min(skull, jaw, 0.2)
    head = _smooth_min(head, _capsule(p, (0.0, -0.62, 0.1), (0.0, -0.72, -0.12), 0.07), 0.1)
    mirrored = torch.stack([p[:, 0].abs(), p[:, 1], p[:, 2]], dim=-1)
    head = _smooth_min(head, _capsule(mirrored, (0.52, 0.05, 0.12), (0.55, 0.08, -0.14), 0.06), 0.06)
    head = _smooth_min(head, _capsule(p, (0.0, 0.1, -0.4), (0.0, 0.13, -0.7), 0.23), 0.1)
    eyes = (mirrored - torch.tensor([0.2, -0.6, 0.12]).to(p)).norm(dim=-1) - 0.11
    head = -_smooth_min(-head, eyes, 0.08)
    x, y, z = p.unbind(-1)
    return head + 0.012 * torch.sin(11 * x) * torch.sin(11 * y) * torch.sin(11 * z)


def _head_albedo(p: Points) -> Points:
    x, y, z = p.unbind(-1)
    skin = _waves(p, (0.78, 0.58, 0.46), 5.0, 0.08)
    hair = ((z - 0.22 - 0.35 * y.clamp(-1, 0.2).neg()) / 0.06).sigmoid()[:, None]
    lips = torch.exp(-((x / 0.14) ** 2 + ((z + 0.36) / 0.05) ** 2))[:, None] * (y < 0)[:, None]
    skin = skin + lips * (torch.tensor([0.65, 0.2, 0.2]).to(p) - skin)
    return skin + hair * (_waves(p, (0.3, 0.18, 0.1), 16.0, 0.12) - skin)


def _vase(p: Points) -> Values:
    """A vase with an opening and a thin wall; its profile is a wave along z."""
    radius = p[:, :2].norm(dim=-1)
    z = p[:, 2]
    profile = 0.4 + 0.14 * torch.sin(3.6 * z + 0.6)
    wall = (radius - profile).abs() * 0.88 - 0.045
    floor = torch.maximum(radius - profile, (z + 0.66).abs() - 0.05)
    body = torch.maximum(wall, z.abs() - 0.7)
    handles = _torus(torch.stack([p[:, 0].abs() - 0.47, z - 0.1, p[:, 1]], dim=-1), 0.22, 0.05)
    shell = torch.minimum(body, floor)
    # The handles end in the wall, not in the hollow.
    return torch.minimum(shell, torch.maximum(handles, profile - radius))


def _vase_albedo(p: Points) -> Points:
    angle = torch.atan2(p[:, 1], p[:, 0])
    stripes = (6 * torch.sin(12 * p[:, 2] + 1.5 * torch.sin(4 * angle))).sigmoid()[:, None]
    return torch.tensor([0.88, 0.82, 0.7]).to(p) * (1 - stripes) + stripes * _waves(p, (0.2, 0.35, 0.6), 6.0, 0.15)


def _lattice(p: Points) -> Values:
    """A cube of crossed bars around a ball."""
    half, bar = 0.5, 0.09
    edges = None
    for axis in range(3):
        others = [k for k in range(3) if k != axis]
        along = (p[:, axis].abs() - half).clamp(min=0)
        across = [(p[:, k].abs() - half).abs() for k in others]
        part = torch.sqrt(along**2 + across[0] ** 2 + across[1] ** 2) - bar
        edges = part if edges is None else torch.minimum(edges, part)
    assert edges is not None
    return torch.minimum(edges, p.norm(dim=-1) - 0.3)


def _coral(p: Points) -> Values:
    """A ball that a gyroid has eaten into: many holes, high curvature."""
    x, y, z = (6.0 * p).unbind(-1)
    gyroid = torch.sin(x) * torch.cos(y) + torch.sin(y) * torch.cos(z) + torch.sin(z) * torch.cos(x)
    sheet = gyroid.abs() / 6.0 - 0.07
    return -_smooth_min(-sheet, -(p.norm(dim=-1) - 0.8), 0.06)


OBJECTS: Dict[str, SdfObject] = {
    "spheres": SdfObject(_spheres, lambda p: _waves(p, (0.62, 0.48, 0.4), 9.0)),
    "torus-box": SdfObject(_torus_box, lambda p: _waves(p, (0.5, 0.52, 0.55), 8.0)),
    "head": SdfObject(_head, _head_albedo, step=0.8),
    "vase": SdfObject(_vase, _vase_albedo, step=0.8),
    "lattice": SdfObject(_lattice, lambda p: _waves(p, (0.55, 0.5, 0.3), 4.0)),
    "coral": SdfObject(_coral, lambda p: _waves(p, (0.7, 0.4, 0.45), 4.0), step=1 / math.sqrt(3)),
}
"""Objects by name, from easy to hard."""
