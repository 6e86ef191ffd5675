"""Exact pictures of a mesh: one ray through each pixel centre, smooth normals, one light, black behind."""

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError

MOST_CROSSINGS = 64
STEP = 1e-5
"""Beyond a crossing, where a ray goes on, world units."""


@dataclass(frozen=True)
class CastRays:
    """What each ray meets; everything is 0 where it meets nothing. The fields are those of `CastView`."""

    rgb: Float[Tensor, "rays 3"]
    mask: Bool[Tensor, "rays"]
    depth: Float[Tensor, "rays"]
    normals: Float[Tensor, "rays 3"]


@dataclass(frozen=True)
class CastView:
    """What one camera sees of a mesh; everything is 0 beside it."""

    rgb: Float[Tensor, "height width 3"]
    """In [0, 1]."""
    mask: Bool[Tensor, "height width"]
    depth: Float[Tensor, "height width"]
    """Along the unit ray, world units."""
    normals: Float[Tensor, "height width 3"]
    """World frame, smooth over the mesh."""


class MeshCaster:
    """Casts rays at one mesh from any number of cameras.

    Args:
        vertices: World frame.
        faces: Triangles.
        colours: Of the vertices, in [0, 1].
        light: Direction towards the light, world frame; what faces away from it keeps 0.55 of its colour. None: all
            keeps its colour.

    Raises:
        InputError: The package embreex is missing.
    """

    def __init__(
        self,
        vertices: Float[Tensor, "vertices 3"],
        faces: Int[Tensor, "faces 3"],
        colours: Float[Tensor, "vertices 3"],
        light: Optional[Float[np.ndarray, "3"]],
    ) -> None:
        try:
            import trimesh
            from trimesh.ray.ray_pyembree import RayMeshIntersector
        except ImportError as error:
            raise InputError("Drawing a mesh needs embreex: pip install 'nerfstudio-ext[human]'.") from error

        self._mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
        self._rays = RayMeshIntersector(self._mesh)
        self._colours = colours.numpy()
        self._light = None if light is None else light / np.linalg.norm(light)

    def view(self, pose: Float[Tensor, "3 4"], focal: float, size: int) -> CastView:
        """A square picture.

        Args:
            pose: Camera to world, OpenGL axes.
            focal: Pixels; the optical axis meets the middle of the picture.
            size: Pixels along a side.
        """
        grid = (np.arange(size) + 0.5 - size / 2) / focal
        y, x = np.meshgrid(-grid, grid, indexing="ij")
        local = np.stack([x, y, -np.ones_like(x)], axis=-1).reshape(-1, 3)
        directions = local @ pose[:, :3].numpy().T.astype(np.float64)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        origins = np.broadcast_to(pose[:, 3].numpy().astype(np.float64), directions.shape)
        hits = self._cast(origins, directions)

        def image(values: Tensor) -> Tensor:
            return values.unflatten(0, (size, size))

        return CastView(image(hits.rgb), image(hits.mask), image(hits.depth), image(hits.normals))

    def first(self, origins: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]) -> "CastRays":
        """What rays meet first; world frame, unit directions."""
        return self._cast(origins.numpy().astype(np.float64), directions.numpy().astype(np.float64))

    def sides(
        self, origins: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"], wanted: Bool[Tensor, "n"]
    ) -> Tuple["CastRays", "CastRays"]:
        """What rays meet first, and what they meet last: the near and the far side.

        Args:
            origins: World frame.
            directions: Unit vectors.
            wanted: Rays that are cast; the others meet nothing.
        """
        starts, ways = origins.numpy().astype(np.float64), directions.numpy().astype(np.float64)
        reach = 2 * float(np.abs(starts).max()) + 2 * float(np.abs(self._mesh.bounds).max())
        cast = wanted.numpy()
        near = _spread(self._cast(starts[cast], ways[cast]), wanted)
        met = near.mask.numpy()
        return near, _spread(self._cast(starts[met] + reach * ways[met], -ways[met]), near.mask)

    def contains(self, points: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, "n"]:
        """Which points are inside: rays from there leave closed surfaces more often than they enter some.

        Parts that overlap or lie within each other, as the eyes in the head, count as one solid.
        """
        # A direction that no edge of a drawn mesh runs along.
        way = np.array([0.0301, 0.9993, 0.0217])
        way /= np.linalg.norm(way)
        crossings = np.zeros(len(points), dtype=int)
        active, starts = np.arange(len(points)), points.astype(np.float64)
        for _ in range(MOST_CROSSINGS):
            triangle = self._rays.intersects_first(starts, np.broadcast_to(way, starts.shape))
            hit = triangle >= 0
            if not hit.any():
                return crossings > 0
            active, starts, triangle = active[hit], starts[hit], triangle[hit]
            corners = self._mesh.triangles[triangle]
            plane = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            slope = plane @ way
            crossings[active] += np.sign(slope).astype(int)
            depth = ((corners[:, 0] - starts) * plane).sum(1) / np.where(slope == 0, 1, slope)
            starts = starts + (np.maximum(depth, 0)[:, None] + STEP) * way
        raise InputError(f"A ray crosses the mesh more than {MOST_CROSSINGS} times: it is no surface of a person.")

    def _cast(self, origins: Float[np.ndarray, "n 3"], directions: Float[np.ndarray, "n 3"]) -> "CastRays":
        from trimesh.triangles import points_to_barycentric

        triangle = self._rays.intersects_first(origins, directions)
        hit = triangle >= 0
        corners = self._mesh.triangles[triangle[hit]]
        # Embree's distances are single precision; the plane of the triangle gives them exactly.
        plane = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        depth = ((corners[:, 0] - origins[hit]) * plane).sum(1) / (directions[hit] * plane).sum(1)
        points = origins[hit] + depth[:, None] * directions[hit]
        share = points_to_barycentric(corners, points)[:, :, None]
        of_corner = self._mesh.faces[triangle[hit]]
        normals = (self._mesh.vertex_normals[of_corner] * share).sum(1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        colours = (self._colours[of_corner] * share).sum(1).clip(0, 1)
        if self._light is not None:
            colours = colours * (0.55 + 0.45 * np.maximum(normals @ self._light, 0))[:, None]

        def spread(values: np.ndarray) -> Tensor:
            full = np.zeros((len(hit), *values.shape[1:]), np.float32)
            full[hit] = values
            return torch.from_numpy(full)

        return CastRays(spread(colours), torch.from_numpy(hit), spread(depth), spread(normals))


def _spread(found: CastRays, where: Bool[Tensor, "n"]) -> CastRays:
    """What some of the rays met, among all of them."""

    def full(values: Tensor) -> Tensor:
        empty = values.new_zeros(len(where), *values.shape[1:])
        empty[where] = values
        return empty

    return CastRays(full(found.rgb), full(found.mask), full(found.depth), full(found.normals))
