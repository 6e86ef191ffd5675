"""The surface of one photographed person: occupancy on a lattice, rays that meet it, and colours for all of it."""

from functools import cached_property
from typing import Callable, Dict, Optional

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.fields.keypoint_icon_field import EncodedPhoto, KeypointIconField
from nerfstudio_ext.human.body_grid import box_span
from nerfstudio_ext.human.keypoint_encoding import keypoint_box
from nerfstudio_ext.human.photo import Photo
from nerfstudio_ext.surface.lattice import refined_lattice
from nerfstudio_ext.surface.mesh import Mesh, largest_component, mesh_of_occupancy

COARSE = 33
"""Points along a side of the first lattice."""
STEPS = 128
"""Samples on a ray before it is known where it enters the surface."""
MASK_GROWTH = 1
"""Pixels by which a mask is grown before what projects beside it is called empty."""
COVERED = 0.7
"""Least share of a photo's mask that a mesh covers; good keypoints and a trained network give 0.96."""
NEAR, FAR = 0.03, 0.08
"""Metres behind what the photo shows at which its colours begin to fade, and where the far side's take over."""


class PhotoSurface:
    """Everything about one encoded photograph that does not change while it is looked at.

    Args:
        field: Trained.
        encoded: One photograph.
        levels: Halvings of the lattice: 1, 2 and 3 give 65, 129 and 257 points along a side.
        iso: Occupancy on the surface.
        progress: Told the share of the lattice that is done.
    """

    def __init__(
        self,
        field: KeypointIconField,
        encoded: EncodedPhoto,
        levels: int,
        iso: float,
        progress: Optional[Callable[[float], None]] = None,
    ) -> None:
        self._field, self._encoded, self._levels, self.iso, self._progress = field, encoded, levels, iso, progress
        self.box = keypoint_box(encoded.photo.keypoints[0])
        kernel = 2 * MASK_GROWTH + 1
        self._room = F.max_pool2d(encoded.photo.mask, kernel, 1, MASK_GROWTH)
        self.evaluated = 0
        """Points at which the lattice asked the network."""

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        field: KeypointIconField,
        photo: Photo,
        levels: int,
        iso: float,
        progress: Optional[Callable[[float], None]] = None,
    ) -> "PhotoSurface":
        """The surface that a trained field sees in one photograph."""
        return cls(field, field.encode(photo, field.sides(photo)), levels, iso, progress)

    @torch.no_grad()
    def occupancy(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """In [0, 1] at world points; 0 beside the mask and outside of the box around the keypoints."""
        camera = self._encoded.photo.camera
        local = camera.local(points[None])
        room = F.grid_sample(self._room, camera.project(local)[:, None], align_corners=False)[0, 0, 0] > 0.5
        ahead = (local[0, :, 2] > 0.01) | ~camera.perspective[0]
        wanted = room & ahead & ((points >= self.box[0]) & (points <= self.box[1])).all(-1)
        found = torch.sigmoid(self._field.logits(self._encoded, points[wanted][None])[-1, 0])
        self.evaluated += int(wanted.sum())
        return points.new_zeros(len(points)).masked_scatter(wanted, found)

    @cached_property
    def volume(self) -> Float[Tensor, "x y z"]:
        """Occupancy on the lattice over the box."""
        return refined_lattice(self.occupancy, self.box, COARSE, self._levels, self.iso, progress=self._progress)[0]

    def mesh(self, largest: bool = True) -> Mesh:
        """Triangles of the surface, without colours.

        Args:
            largest: Of its connected parts keep the largest alone.

        Raises:
            InputError: There is no surface.
        """
        mesh = mesh_of_occupancy(self.volume, self.box, self.iso)
        return largest_component(mesh) if largest else mesh

    def require_person(self, mesh: Mesh) -> None:
        """Refuse a mesh that is not what the photo shows.

        Raises:
            InputError: It covers too little of the person.
        """
        import cv2

        photo = self._encoded.photo
        size = photo.mask.shape[-1]
        verts = torch.from_numpy(mesh.verts).to(self.box.device)[None]
        pixels = ((photo.camera.project(photo.camera.local(verts))[0] + 1) * (size / 2) - 0.5).cpu().numpy()
        drawn = np.zeros((size, size), np.uint8)
        for triangle in (pixels * 16).round().astype(np.int32)[mesh.faces]:
            cv2.fillConvexPoly(drawn, triangle, (1,), shift=4)
        person = photo.mask[0, 0].cpu().numpy() > 0.5
        found = float((drawn[person] > 0).mean())
        if found < COVERED:
            raise InputError(
                f"The mesh covers only {found:.0%} of the person in the photo: look whether the keypoints' order and "
                "depths are right and the mask holds nothing else; a network of one's own may need more training."
            )

    @torch.no_grad()
    def march(self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> Dict[str, Tensor]:
        """Where unit rays first meet the surface: `hit` [rays], `depth` [rays], `points` and `normals` [rays, 3]."""
        near, far = box_span(origins, directions, self.box)
        length = (far - near).clamp(min=0)
        shares = torch.linspace(0, 1, STEPS, device=origins.device)
        depths = near[:, None] + length[:, None] * shares
        values = self._sample((origins[:, None] + depths[..., None] * directions[:, None]).reshape(-1, 3))
        solid = (values.view(depths.shape) > self.iso) & (length > 0)[:, None]
        hit, first = solid.any(1), solid.float().argmax(1)
        row = torch.arange(len(origins), device=origins.device)
        before = (first - 1).clamp(min=0)
        after_value, before_value = values.view(depths.shape)[row, first], values.view(depths.shape)[row, before]
        share = ((self.iso - before_value) / (after_value - before_value).clamp(min=1e-6)).clamp(0, 1)
        depth = depths[row, before] + share * (depths[row, first] - depths[row, before])
        depth = torch.where(hit, depth, torch.zeros_like(depth))
        points = origins + depth[:, None] * directions
        normals = self.normals(points) * hit[:, None]
        return {"hit": hit, "depth": depth, "points": points, "normals": normals}

    def normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Unit normals at points on the surface, outwards, world frame."""
        step = float((self.box[1] - self.box[0]).max()) / (len(self.volume) - 1)
        axes = torch.eye(3, device=points.device) * step
        slopes = [self._sample(points - axis) - self._sample(points + axis) for axis in axes]
        return F.normalize(torch.stack(slopes, dim=-1), dim=-1, eps=1e-9)

    @torch.no_grad()
    def colours(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """In [0, 1]: the photo's where it sees the point, what the network makes up for the far side elsewhere."""
        photo = self._encoded.photo
        local = photo.camera.local(points[None])
        places = photo.camera.project(local)[:, None]
        front = F.grid_sample(self._padded(photo.rgb), places, align_corners=False, padding_mode="border")[0, :, 0].T
        back = self._padded(self._encoded.sides.back_rgb)
        back = F.grid_sample(back, places, align_corners=False, padding_mode="border")[0, :, 0].T
        seen = F.grid_sample(self._photo_depth, places, mode="nearest", align_corners=False)[0, 0, 0]
        share = ((local[0, :, 2] - seen - NEAR) / (FAR - NEAR)).clamp(0, 1)[:, None]
        return front * (1 - share) + back * share

    @cached_property
    def _photo_depth(self) -> Float[Tensor, "1 1 size size"]:
        """Depth, in the frame of the camera, of what the photo shows; far away where the surface has a hole."""
        photo = self._encoded.photo
        size = photo.mask.shape[-1]
        origins, directions = (x[0] for x in photo.camera.rays(size))
        if not bool(photo.camera.perspective[0]):
            reach = float((self.box[1] - self.box[0]).norm())
            middle = photo.camera.local(self.box.mean(0)[None, None])[0, 0, 2]
            origins = origins + (middle - reach) * directions
        found = self.march(origins, directions)
        depth = photo.camera.local(found["points"][None])[0, :, 2]
        return torch.where(found["hit"], depth, depth.new_full((), 1e3)).view(1, 1, size, size)

    def _padded(self, picture: Float[Tensor, "1 3 size size"]) -> Float[Tensor, "1 3 size size"]:
        """The picture with the colours inside the mask carried over its edge, so that no black comes in."""
        mask = 1 - F.max_pool2d(1 - self._encoded.photo.mask, 3, 1, 1)
        filled, known = picture * mask, mask
        for _ in range(4):
            total = F.avg_pool2d(filled, 3, 1, 1)
            weight = F.avg_pool2d(known, 3, 1, 1)
            filled = torch.where(known > 0, filled, total / weight.clamp(min=1e-6))
            known = torch.maximum(known, (weight > 0).float())
        return filled

    def _sample(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Occupancy between the lattice's points; 0 outside of the box."""
        grid = (points - self.box[0]) / (self.box[1] - self.box[0]) * 2 - 1
        # The innermost axis of a volume is the one that grid_sample calls x.
        return F.grid_sample(self.volume[None, None], grid.flip(-1)[None, None, None], align_corners=True).flatten()
