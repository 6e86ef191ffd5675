"""Drawn people as a network that reconstructs surfaces learns from them: photographs with the normals of the side that
is seen and of the side behind it, and points of which it is known whether they are inside."""

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Dict

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.host import cache_dir
from nerfstudio_ext.human.photo_camera import PhotoCamera
from nerfstudio_ext.procedural.casting import MeshCaster
from nerfstudio_ext.procedural.people import VERSION, ProceduralPeople
from nerfstudio_ext.procedural.rigs import look_at_origin

SCAN_VERSION = 2
"""Of what is drawn here; raise it when the same options give other numbers."""
KEPT, KEPT_BYTES = 256, 4 * 2**30
"""People whose scans stay in memory, and what these may take; 36 photos of 512 pixels are 115 MB."""
UNIFORM_SHARE = 0.25
"""Of the points, those spread evenly over the box; the others lie about the surface."""
BOX_ROOM = 0.15
"""Metres between the person and the box of the points."""


@dataclass(frozen=True)
class ScanOptions:
    """What decides how people are seen, beside who they are."""

    views: int = 6
    size: int = 128
    points: int = 24000
    span: float = 0.85
    """Share of the picture that the person takes, on average over the views."""
    surface_noise: float = 0.05
    """Standard deviation of the distance from the surface, metres (the card's 5 cm)."""


@dataclass(frozen=True)
class Scan:
    """One person from several sides; every second camera is a weak perspective."""

    rgb: UInt8[Tensor, "views 3 size size"]
    back_rgb: UInt8[Tensor, "views 3 size size"]
    """The far side, as seen through the near one."""
    normals: Int[Tensor, "views 3 size size"]
    """Of the near side, times 127, frame of the camera; 0 beside the person."""
    back_normals: Int[Tensor, "views 3 size size"]
    camera: PhotoCamera
    keypoints: Float[Tensor, "k 3"]
    points: Float[Tensor, "n 3"]
    inside: Float[Tensor, "n"]


class ProceduralScans:
    """Scans of drawn people, made when they are first asked for and kept in the user's cache.

    Args:
        people: Who they are.
        options: How they are seen.

    Raises:
        InputError: The people are faces.
    """

    def __init__(self, people: ProceduralPeople, options: ScanOptions) -> None:
        if people.options.subjects != "bodies":
            raise InputError(
                f"keypoint-icon learns whole people: draw --subjects bodies, not {people.options.subjects}."
            )
        self.people, self.options = people, options
        parts = [VERSION, SCAN_VERSION, people.options.seed, asdict(options)]
        # As for the people themselves, the usual poses add nothing.
        parts += [] if people.options.pose_strength == 1 else [people.options.pose_strength]
        self._folder = cache_dir() / "scans" / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        one = 12 * options.views * options.size**2 + 16 * options.points
        self._read = lru_cache(max(1, min(KEPT, KEPT_BYTES // one)))(self._read_scan)

    def __getitem__(self, index: int) -> Scan:
        return self._read(index)

    def _read_scan(self, index: int) -> Scan:
        path = self._folder / f"{self.people.name(index)}.npz"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Another process may draw the same person: each writes a file of its own, and the last rename wins.
            partial = path.with_suffix(f".{os.getpid()}.partial.npz")
            np.savez_compressed(partial, **{key: value.numpy() for key, value in self._draw(index).items()})
            partial.replace(path)
        with np.load(path) as archive:
            arrays = {key: torch.from_numpy(archive[key]) for key in archive.files}
        names = ("world_to_camera", "focal", "centre", "perspective")
        camera = PhotoCamera(*(arrays.pop(name) for name in names))
        return Scan(camera=camera, **{key: x if x.dtype in (torch.uint8, torch.int8) else x.float()
                                      for key, x in arrays.items()})  # fmt: skip

    def _draw(self, index: int) -> Dict[str, Tensor]:
        person, light = self.people.person(index)
        random = np.random.default_rng([self.people.options.seed, 77, index])
        caster = MeshCaster(person.vertices, person.faces, person.colours, light)
        camera = photo_cameras(person.vertices, self.options, random)
        parts = []
        for view in range(self.options.views):
            one = camera[torch.tensor([view])]
            places = one.project(one.local(person.vertices[None]))[0]
            origins, directions = one.rays(self.options.size)
            seen, behind = caster.sides(origins[0], directions[0], window(places, self.options.size))
            rotation = one.world_to_camera[0, :, :3]
            parts.append([
                *((side.rgb * 255).round().to(torch.uint8).T for side in (seen, behind)),
                *((side.normals @ rotation.T * 127).round().to(torch.int8).T for side in (seen, behind)),
            ])  # fmt: skip
        side = self.options.size
        names = ("rgb", "back_rgb", "normals", "back_normals")
        maps = {name: torch.stack(x).unflatten(2, (side, side)) for name, x in zip(names, zip(*parts))}
        points = draw_points(person.vertices, person.faces, self.options, random)
        cameras = dict(zip(("world_to_camera", "focal", "centre", "perspective"), camera.tensors()))
        labels = torch.from_numpy(caster.contains(points.numpy()))
        return {**maps, **cameras, "keypoints": person.keypoints, "points": points, "inside": labels}


def window(places: Float[Tensor, "n 2"], size: int) -> Bool[Tensor, "pixels"]:
    """Pixels within the rectangle around places in the picture, row by row."""
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    low, high = places.amin(0), places.amax(0)
    column, row = ((axis >= low[k]) & (axis <= high[k]) for k in (0, 1))
    return (row[:, None] & column).flatten()


def photo_cameras(
    vertices: Float[Tensor, "vertices 3"], options: ScanOptions, random: np.random.Generator
) -> PhotoCamera:
    """Cameras around a person that frame it, at distances of 2 to 5 m; every second is a weak perspective."""
    count = options.views
    turns = 2 * math.pi * (np.arange(count) + random.uniform()) / count
    up = np.radians(random.uniform(-8, 15, count))
    radius = random.uniform(2.0, 5.0, count)
    flat = np.stack([np.cos(turns), np.sin(turns)], axis=1) * np.cos(up)[:, None]
    poses = look_at_origin(torch.from_numpy(radius[:, None] * np.concatenate([flat, np.sin(up)[:, None]], 1)).float())
    rotations = (poses[..., :3] * torch.tensor([1.0, -1.0, -1.0])).transpose(1, 2)
    camera = PhotoCamera(
        world_to_camera=torch.cat([rotations, -(rotations @ poses[..., 3:])], dim=-1),
        focal=torch.ones(count, 1),
        centre=torch.zeros(count, 2),
        perspective=(torch.arange(count) % 2 == 0)[:, None],
    )
    places = camera.project(camera.local(vertices.expand(count, -1, -1)))
    low, high = places.amin(1), places.amax(1)
    half = (high - low).amax(1, keepdim=True) / 2
    spans = options.span * torch.from_numpy(random.uniform(0.93, 1.07, (count, 1))).float()
    shift = torch.from_numpy(random.uniform(-0.04, 0.04, (count, 2))).float()
    return camera.window((low + high) / 2 + shift * half, half / spans)


def draw_points(
    vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    options: ScanOptions,
    random: np.random.Generator,
) -> Float[Tensor, "n 3"]:
    """Points about the surface, evenly over its area, and points spread over the box, in random order."""
    even = round(options.points * UNIFORM_SHARE)
    a, b, c = (vertices[faces[:, k]].numpy().astype(np.float64) for k in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1)
    chosen = random.choice(len(faces), options.points - even, p=area / area.sum())
    u, v = np.sqrt(random.random(len(chosen)))[:, None], random.random(len(chosen))[:, None]
    on = (1 - u) * a[chosen] + u * (1 - v) * b[chosen] + u * v * c[chosen]
    away = random.normal(size=(len(chosen), 1)) * options.surface_noise
    near = on + away * cross[chosen] / np.maximum(area[chosen, None], 1e-12)
    low, high = vertices.amin(0).numpy() - BOX_ROOM, vertices.amax(0).numpy() + BOX_ROOM
    points = np.concatenate([near, random.uniform(low, high, (even, 3))])
    return torch.from_numpy(random.permutation(points)).float()
