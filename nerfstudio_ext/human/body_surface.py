"""A posed body as ICON's point network reads it: how far away its skin is, which way that faces, and which part it is
(the body features of ICON, CVPR 2022, section 3.2), and whether the camera sees that part."""

from functools import cached_property
from typing import Any, Tuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerfstudio_ext.human.photo_camera import PhotoCamera

WIDTH = 7
"""Numbers in the features of a point."""
LIFT = 0.002
"""Metres off the skin from where it is asked whether the camera is in sight."""


class BodySurface:
    """One posed body; metres, world frame. Distances are found on the CPU, without gradients.

    Args:
        vertices: Posed.
        faces: Triangles, outwards.
        parts: A colour for every vertex, the same for all people, which says what part of the body it is.
    """

    def __init__(
        self,
        vertices: Float[Tensor, "vertices 3"],
        faces: Int[Tensor, "faces 3"],
        parts: Float[Tensor, "vertices 3"],
    ) -> None:
        self._vertices, self._faces, self._parts = vertices, faces, parts

    def features(self, points: Float[Tensor, "n 3"], world_to_camera: Float[Tensor, "3 4"]) -> Float[Tensor, "n 7"]:
        """Signed distance in metres, negative inside; normal of the nearest skin in the camera's frame; its part.

        Args:
            points: World frame.
            world_to_camera: Of the photograph.
        """
        import open3d

        asked = open3d.core.Tensor.from_numpy(points.detach().cpu().numpy().astype(np.float32))
        distance = torch.from_numpy(self._scene.compute_signed_distance(asked).numpy())
        face, normal, share, _ = self._nearest(points)
        part = (self._parts[self._faces[face]] * share[..., None]).sum(1)
        local = normal @ world_to_camera[:, :3].cpu().T
        return torch.cat([distance[:, None], local, part], dim=-1).to(points)

    def seen(self, points: Float[Tensor, "n 3"], camera: PhotoCamera) -> Bool[Tensor, "n"]:
        """Whether the camera, a batch of one, sees the skin nearest to each point (ICON's choice of the side)."""
        import open3d

        _, normal, _, nearest = self._nearest(points)
        rotation, shift = (x.cpu() for x in (camera.world_to_camera[0, :, :3], camera.world_to_camera[0, :, 3]))
        starts = nearest + LIFT * normal
        if bool(camera.perspective[0]):
            ways = torch.nn.functional.normalize(-(rotation.T @ shift) - starts, dim=-1)
        else:
            ways = -rotation[2].expand_as(starts)
        rays = open3d.core.Tensor.from_numpy(torch.cat([starts, ways], dim=-1).numpy().astype(np.float32))
        hidden = torch.from_numpy(self._scene.test_occlusions(rays).numpy())
        return (~hidden).to(points.device)

    def _nearest(self, points: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Triangle, its normal, barycentric coordinates and place of the nearest skin of each point."""
        import open3d

        asked = open3d.core.Tensor.from_numpy(points.detach().cpu().numpy().astype(np.float32))
        found = self._scene.compute_closest_points(asked)
        face = torch.from_numpy(found["primitive_ids"].numpy().astype(np.int64))
        uv = torch.from_numpy(found["primitive_uvs"].numpy())
        share = torch.cat([1 - uv.sum(-1, keepdim=True), uv], dim=-1)
        normal, place = (torch.from_numpy(found[name].numpy()) for name in ("primitive_normals", "points"))
        return face, normal, share, place

    @cached_property
    def _scene(self) -> Any:
        import open3d

        scene = open3d.t.geometry.RaycastingScene(nthreads=torch.get_num_threads())
        scene.add_triangles(
            open3d.core.Tensor.from_numpy(self._vertices.numpy().astype(np.float32)),
            open3d.core.Tensor.from_numpy(self._faces.numpy().astype(np.uint32)),
        )
        return scene
