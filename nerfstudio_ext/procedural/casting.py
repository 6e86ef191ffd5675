"""Exact pictures of a mesh: one ray through each pixel centre, smooth normals, one light, black behind."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError


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
        light: Direction towards the light, world frame; what faces away from it keeps 0.55 of its colour.

    Raises:
        InputError: The package embreex is missing.
    """

    def __init__(
        self,
        vertices: Float[Tensor, "vertices 3"],
        faces: Int[Tensor, "faces 3"],
        colours: Float[Tensor, "vertices 3"],
        light: Float[np.ndarray, "3"],
    ) -> None:
        try:
            import trimesh
            from trimesh.ray.ray_pyembree import RayMeshIntersector
        except ImportError as error:
            raise InputError("Drawing a person needs embreex: pip install 'nerfstudio-ext[human]'.") from error

        self._mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
        self._rays = RayMeshIntersector(self._mesh)
        self._colours = colours.numpy()
        self._light = light / np.linalg.norm(light)

    def view(self, pose: Float[Tensor, "3 4"], focal: float, size: int) -> CastView:
        """A square picture.

        Args:
            pose: Camera to world, OpenGL axes.
            focal: Pixels; the optical axis meets the middle of the picture.
            size: Pixels along a side.
        """
        from trimesh.triangles import points_to_barycentric

        grid = (np.arange(size) + 0.5 - size / 2) / focal
        y, x = np.meshgrid(-grid, grid, indexing="ij")
        local = np.stack([x, y, -np.ones_like(x)], axis=-1).reshape(-1, 3)
        directions = local @ pose[:, :3].numpy().T.astype(np.float64)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        origins = np.broadcast_to(pose[:, 3].numpy().astype(np.float64), directions.shape)
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
        shading = 0.55 + 0.45 * np.maximum(normals @ self._light, 0)
        colours = ((self._colours[of_corner] * share).sum(1) * shading[:, None]).clip(0, 1)

        def image(values: np.ndarray) -> Tensor:
            full = np.zeros((size * size, *values.shape[1:]), np.float32)
            full[hit] = values
            return torch.from_numpy(full.reshape(size, size, *values.shape[1:]))

        mask = torch.from_numpy(hit.reshape(size, size))
        return CastView(image(colours), mask, image(depth), image(normals))
