"""Where a body stands in one frame, and the voxels that its vertices fall into (Neural Body, section 3.2).

The body frame is y = R^T (x - Th); voxel coordinates are in (z, y, x) order, finest-level voxels from the corner of the
body-frame box.
"""

from dataclasses import dataclass
from typing import List, Tuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.skinning import rotation_matrix
from nerfstudio_ext.human.sparse_conv import Shape, SparseTables, build_tables, dilate, row_at

MULTIPLE = 32
"""Grids are as large as the smallest multiple of this above what the body needs."""


@dataclass(frozen=True)
class BodyFrame:
    """One frame of a body on its voxel grid; metres."""

    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, "3"]
    corner: Float[Tensor, "3"]
    """Least corner of the padded body-frame box, (x, y, z)."""
    box: Float[Tensor, "2 3"]
    """Padded box of the vertices along the world's axes."""
    voxel_size: float
    tables: SparseTables
    near_body: Bool[Tensor, "z y x"]
    """Voxels of level 1 where samples are decoded."""

    def to(self, device: torch.device) -> "BodyFrame":
        """This frame on a device."""
        tables = self.tables
        moved = SparseTables(
            tables.site_of_point.to(device),
            [table.to(device) for table in tables.same],
            [table.to(device) for table in tables.down],
            [rows.to(device) for rows in tables.rows],
            tables.counts,
        )
        return BodyFrame(
            self.rotation.to(device),
            self.translation.to(device),
            self.corner.to(device),
            self.box.to(device),
            self.voxel_size,
            moved,
            self.near_body.to(device),
        )

    def voxels(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """World points in voxels of the finest level."""
        body = (points - self.translation) @ self.rotation
        return (body - self.corner).flip(-1) / self.voxel_size

    def is_near(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, "n"]:
        """Whether a sample at each world point is decoded at all, in training and in evaluation alike."""
        rows = row_at(self.near_body.int(), (self.voxels(points) / 2).round().long(), 0)
        return rows > 0


def box_span(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], box: Float[Tensor, "2 3"]
) -> Tuple[Float[Tensor, "rays"], Float[Tensor, "rays"]]:
    """Where rays enter and leave a box along the axes; they miss it where they leave before they enter."""
    safe = torch.where(directions.abs() < 1e-5, torch.full_like(directions, 1e-5), directions)
    ends = (box[:, None] - origins) / safe
    near = ends.amin(0).amax(-1).clamp(min=0)
    return near, ends.amax(0).amin(-1)


def body_frames(motion: BodyMotion, voxel_size: float, padding: float, reach: int) -> List[BodyFrame]:
    """Grids and tables of all frames of a motion.

    Args:
        motion: The body.
        voxel_size: Of the finest level, metres.
        padding: Room around the vertices on every side, metres.
        reach: Samples further than this many level-1 voxels from any active one are empty.
    """
    frames = []
    for vertices, turn, translation in zip(motion.vertices, motion.root_rotation, motion.root_translation):
        rotation = rotation_matrix(turn)
        body = (vertices - translation) @ rotation
        low, high = body.amin(0) - padding, body.amax(0) + padding
        sizes = torch.ceil((high - low).flip(-1) / voxel_size).long().tolist()
        shape: Shape = tuple((n | (MULTIPLE - 1)) + 1 for n in sizes)  # type: ignore
        coords = ((body - low).flip(-1) / voxel_size).round().long()
        tables = build_tables(coords, shape)
        box = torch.stack([vertices.amin(0) - padding, vertices.amax(0) + padding])
        near = dilate(tables.rows[1], tables.counts[1], reach)
        frames.append(BodyFrame(rotation, translation, low, box, voxel_size, tables, near))
    return frames
