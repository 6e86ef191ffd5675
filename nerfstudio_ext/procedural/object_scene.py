"""One object, cameras around it and a far background: pictures with exact mask, depth and normals."""

import hashlib
import math
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import List, Optional, Union

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.host import cache_dir
from nerfstudio_ext.procedural import camera_path, casting, mesh_object, objects, rigs
from nerfstudio_ext.procedural.camera_path import read_camera_path
from nerfstudio_ext.procedural.kept import kept_arrays
from nerfstudio_ext.procedural.mesh_object import ENDINGS, MeshObject, Up
from nerfstudio_ext.procedural.objects import Points, SdfObject, Values, get_object
from nerfstudio_ext.procedural.rigs import ObjectRigName, rig_poses

BACKGROUND_RADIUS = 8.0
"""The far background is painted on a sphere of this radius about the origin, in world units."""
FIELD_OF_VIEW = math.radians(50)
MAX_STEPS, PRECISION = 200, 2e-4
DRAWING = (camera_path, casting, mesh_object, objects, rigs)
"""Modules that decide what is drawn, besides this one."""


@dataclass(frozen=True)
class ObjectSceneOptions:
    """Everything that decides what an object scene looks like."""

    name: str = "torus-box"
    """A procedural object, or a mesh file."""
    num_views: int = 40
    """Cameras; of a path at most so many, evenly chosen."""
    size: int = 128
    """Width and height of the pictures in pixels; those of a path have its shape, and this is their longer side."""
    rig: ObjectRigName = "rings"
    radius: float = 2.6
    """Distance of the cameras from the origin, except of those of a path."""
    background: bool = True
    seed: int = 0
    up: Up = "z"
    """Axis of a mesh file that points up."""
    camera_path: Optional[Path] = None
    """File of the rig ``path``."""


@dataclass(frozen=True)
class ObjectView:
    """One picture with its ground truth; depth is Euclidean along the ray in world units, 0 beside the object."""

    rgb: Float[Tensor, "height width 3"]
    mask: Bool[Tensor, "height width"]
    depth: Float[Tensor, "height width"]
    normals: Float[Tensor, "height width 3"]


class ObjectScene:
    """A drawn scene; views are drawn when they are first asked for and then kept, also in the user's cache.

    Args:
        options: What to draw.

    Raises:
        InputError: There is no such object, or the numbers describe no scene.
    """

    def __init__(self, options: ObjectSceneOptions) -> None:
        if options.num_views < 1 or options.size < 2 or options.radius <= 1.0:
            raise InputError(
                f"An object scene needs at least one view of at least 2 pixels from outside the unit sphere, not "
                f"{options.num_views} views of {options.size} pixels from {options.radius}."
            )
        self.options = options
        path = Path(options.name).expanduser()
        self.object: Union[SdfObject, MeshObject]
        if path.suffix.lower() in ENDINGS:
            self.object = MeshObject(path, options.up)
            contents = self.object.digest
        else:
            self.object, contents = get_object(options.name), ""
        self.width = self.height = options.size
        self.poses: Float[Tensor, "views 3 4"]
        self.focals: List[float]
        if (options.rig == "path") != (options.camera_path is not None):
            raise InputError("--rig path and --camera-path FILE.json belong together: give both or none.")
        if options.rig == "path":
            assert options.camera_path is not None
            file = options.camera_path.expanduser()
            rig = read_camera_path(file, BACKGROUND_RADIUS if options.background else None)
            self.width = max(2, round(options.size * min(1.0, rig.aspect)))
            self.height = max(2, round(options.size * min(1.0, 1 / rig.aspect)))
            count = min(options.num_views, len(rig.poses))
            chosen = [k * len(rig.poses) // count for k in range(count)]
            self.poses = rig.poses[chosen]
            self.focals = [0.5 * self.height / math.tan(rig.fields_of_view[k] / 2) for k in chosen]
            contents += hashlib.sha256(file.read_bytes()).hexdigest()
        else:
            self.poses = rig_poses(options.rig, options.num_views, options.radius)
            self.focals = [0.5 * options.size / math.tan(FIELD_OF_VIEW / 2)] * options.num_views
        # The seed turns the background about the vertical axis and shifts its colours.
        self._phases = torch.rand(6, generator=torch.Generator().manual_seed(options.seed)) * (2 * math.pi)
        key = hashlib.sha256(repr((sources(), contents, asdict(options))).encode()).hexdigest()[:16]
        self.folder = cache_dir() / "objects" / f"{path.stem}-{key}"
        self._view = lru_cache(maxsize=None)(self._kept)

    def __deepcopy__(self, memo: dict) -> "ObjectScene":
        return self  # datasets copy their metadata; what is drawn once serves all of them

    def view(self, index: int) -> ObjectView:
        """Picture and ground truth of one camera."""
        return self._view(index)

    def rays(self, index: int) -> Float[Tensor, "height width 3"]:
        """Unit directions through the pixel centres (at +0.5) of one camera, world frame."""
        row, column = ((torch.arange(side) + 0.5 - side / 2) / self.focals[index] for side in (self.height, self.width))
        y, x = torch.meshgrid(-row, column, indexing="ij")
        local = torch.stack([x, y, -torch.ones_like(x)], dim=-1)
        return torch.nn.functional.normalize(local @ self.poses[index, :, :3].T, dim=-1)

    def _kept(self, index: int) -> ObjectView:
        """A view from the user's cache, where it is put when it is drawn."""
        path = self.folder / f"{index:04d}.npz"
        names = ("rgb", "mask", "depth", "normals")
        return ObjectView(**kept_arrays(path, names, lambda: vars(self._draw(index))))

    def _draw(self, index: int) -> ObjectView:
        directions = self.rays(index).reshape(-1, 3)
        origins = self.poses[index, :, 3].expand_as(directions)
        rgb = self._background(origins, directions) if self.options.background else torch.ones_like(directions)
        if isinstance(self.object, MeshObject):
            seen = self.object.caster.first(origins, directions)
            depth, hit, normals = seen.depth, seen.mask, seen.normals
            rgb[hit] = seen.rgb[hit]
        else:
            depth, hit = trace(self.object, origins, directions)
            points = origins[hit] + depth[hit, None] * directions[hit]
            normals = torch.zeros_like(directions)
            normals[hit] = self.object.normals(points)
            rgb[hit] = self.object.shade(points, normals[hit])
        shape = (self.height, self.width)
        return ObjectView(rgb.reshape(*shape, 3), hit.reshape(shape), depth.reshape(shape), normals.reshape(*shape, 3))

    def _background(self, origins: Points, directions: Points) -> Points:
        """Soft coloured bands on a far sphere, with parallax."""
        b = (origins * directions).sum(-1)
        far = -b + torch.sqrt(b**2 - origins.square().sum(-1) + BACKGROUND_RADIUS**2)
        x, y, z = torch.nn.functional.normalize(origins + far[:, None] * directions, dim=-1).unbind(-1)
        phase = self._phases
        return torch.stack(
            [
                0.50 + 0.22 * torch.sin(3 * x + phase[0]) * torch.cos(2 * z + phase[3]),
                0.52 + 0.20 * torch.sin(3 * y + phase[1]) * torch.cos(2 * x + phase[4]),
                0.58 + 0.22 * torch.sin(3 * z + phase[2]) * torch.cos(2 * y + phase[5]),
            ],
            dim=-1,
        )


@cache
def sources() -> str:
    """Digest of the code that draws: what it drew before it was changed is not taken from the cache."""
    files = (Path(str(module)) for module in (__file__, *(m.__file__ for m in DRAWING)))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def trace(
    target: SdfObject, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
) -> tuple[Float[Tensor, "rays"], Bool[Tensor, "rays"]]:
    """First meeting of rays with an object inside the unit sphere, by sphere tracing and bisection.

    Args:
        target: The object.
        origins: Starts, outside the unit sphere.
        directions: Unit vectors.

    Returns:
        Distance along the ray in world units (0 where nothing is met), and whether something is met.
    """
    b = (origins * directions).sum(-1)
    root = b**2 - origins.square().sum(-1) + 1.0
    depth, hit = torch.zeros_like(b), torch.zeros_like(b, dtype=torch.bool)
    active = torch.nonzero((root > 0) & (b < 0)).flatten()
    t = -b[active] - root[active].sqrt()
    end = -b[active] + root[active].sqrt()
    for _ in range(MAX_STEPS):
        if not len(active):
            break
        value = target.sdf(origins[active] + t[:, None] * directions[active])
        found = value < PRECISION
        depth[active[found]], hit[active[found]] = t[found], True
        t = t + value * target.step
        going = ~found & (t < end)
        active, t, end = active[going], t[going], end[going]
    depth[hit] = _refine(target, origins[hit], directions[hit], depth[hit])
    return depth, hit


def _refine(target: SdfObject, origins: Points, directions: Points, t: Values) -> Values:
    """Bisection about the place where tracing stopped, where the sign changes there."""
    low, high = t - 5e-4, t + 5e-4
    inside = target.sdf(origins + high[:, None] * directions) < 0
    inside &= target.sdf(origins + low[:, None] * directions) > 0
    for _ in range(6):
        middle = 0.5 * (low + high)
        below = target.sdf(origins + middle[:, None] * directions) < 0
        low, high = torch.where(below, low, middle), torch.where(below, middle, high)
    return torch.where(inside, 0.5 * (low + high), t)
