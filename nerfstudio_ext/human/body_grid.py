"""Where a body stands in one frame, and the voxels that its vertices fall into (Neural Body, section 3.2).

The body frame is y = R^T (x - Th); voxel coordinates are in (z, y, x) order, finest-level voxels from the corner of the
body-frame box.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Tuple, Union

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.skinning import rotation_matrix
from nerfstudio_ext.human.sparse_conv import Shape, SparseTables, build_tables, dilate, flagged

MULTIPLE = 32
"""Grids are as large as the smallest multiple of this above what the body needs."""
MOST_VOXELS = 10**9
"""Of a frame's finest grid, which takes 4 bytes for each while it is worked out; a person's at 5 mm has 10^7."""


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
    """Voxels of level 1 where samples are decoded, with a rim."""

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
        return replace(
            self,
            rotation=self.rotation.to(device),
            translation=self.translation.to(device),
            corner=self.corner.to(device),
            box=self.box.to(device),
            tables=moved,
            near_body=self.near_body.to(device),
        )

    def from_world(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """World points in the body's frame, which turns and moves with its root."""
        return (points - self.translation) @ self.rotation

    def voxels(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """World points in voxels of the finest level."""
        return (self.from_world(points) - self.corner).flip(-1) / self.voxel_size

    def carried(self, points: Float[Tensor, "n 3"], other: "BodyFrame") -> Float[Tensor, "n 3"]:
        """World points that move with the body from here to where another frame has it."""
        return self.from_world(points) @ other.rotation.T + other.translation

    def is_near(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, "n"]:
        """Whether a sample at each world point is decoded at all, in training and in evaluation alike."""
        return flagged(self.near_body, self.voxels(points) / 2)


def box_span(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], box: Float[Tensor, "2 3"]
) -> Tuple[Float[Tensor, "rays"], Float[Tensor, "rays"]]:
    """Where rays enter and leave a box along the axes; they miss it where they leave before they enter."""
    safe = torch.where(directions.abs() < 1e-5, torch.full_like(directions, 1e-5), directions)
    ends = (box[:, None] - origins) / safe
    near = ends.amin(0).amax(-1).clamp(min=0)
    return near, ends.amax(0).amin(-1)


class BodyFrames:
    """Grids and tables of the frames of a motion, worked out when they are asked for; the last ones asked for are kept.

    Args:
        motion: The body.
        voxel_size: Of the finest level, metres.
        padding: Room around the vertices on every side, or along x, y and z, metres.
        reach: Samples further than this many level-1 voxels from any active one are empty.
        limit: Frames that are kept; at 5 mm each takes about 16 MB, at 20 mm about 1 MB.

    Raises:
        InputError: A number cannot be.
    """

    def __init__(
        self,
        motion: BodyMotion,
        voxel_size: float,
        padding: Union[float, Tuple[float, float, float]],
        reach: int,
        limit: int = 400,
    ) -> None:
        if not (voxel_size > 0 and math.isfinite(voxel_size)):
            raise InputError(f"The voxel size of a body's grid is {voxel_size:g}, but must be metres above 0.")
        if not all(0 <= room < math.inf for room in torch.tensor(padding).flatten().tolist()):
            raise InputError(f"The box padding about a body is {padding}, but must be metres from 0 on.")
        if reach < 0:
            raise InputError(f"The reach of a body's codes is {reach}, but must be voxels from 0 on.")
        if limit < 1:
            raise InputError(
                f"The frames of a body that are kept (cached_frames) are {limit}, but must be one at least."
            )
        self._motion, self._voxel_size, self._padding = motion, voxel_size, torch.tensor(padding)
        self._reach, self._limit = reach, limit
        self._device = motion.vertices.device
        self._kept: "OrderedDict[int, BodyFrame]" = OrderedDict()

    def __len__(self) -> int:
        return len(self._motion.vertices)

    def __getitem__(self, number: int) -> BodyFrame:
        if not 0 <= number < len(self):
            raise IndexError(f"frame {number} of {len(self)}")
        if number not in self._kept:
            self._kept[number] = self._build(number).to(self._device)
            if len(self._kept) > self._limit:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def to(self, device: torch.device) -> "BodyFrames":
        """These frames on a device."""
        if device != self._device:
            self._device = device
            self._kept = OrderedDict((number, frame.to(device)) for number, frame in self._kept.items())
        return self

    def _build(self, number: int) -> BodyFrame:
        motion, padding = self._motion, self._padding
        vertices, translation = motion.vertices[number], motion.root_translation[number]
        rotation = rotation_matrix(motion.root_rotation[number])
        body = (vertices - translation) @ rotation
        low, high = body.amin(0) - padding, body.amax(0) + padding
        sizes = torch.ceil((high - low).flip(-1) / self._voxel_size).long().tolist()
        shape: Shape = tuple((n | (MULTIPLE - 1)) + 1 for n in sizes)  # type: ignore
        if math.prod(shape) > MOST_VOXELS:
            raise InputError(
                f"Voxels of {self._voxel_size:g} m make a grid of {math.prod(shape):.2g} for frame {number}'s body, "
                f"but {MOST_VOXELS:.2g} are the most: take larger ones or less box padding."
            )
        coords = ((body - low).flip(-1) / self._voxel_size).round().long()
        tables = build_tables(coords, shape)
        box = torch.stack([vertices.amin(0) - padding, vertices.amax(0) + padding])
        near = dilate(tables.rows[1], tables.counts[1], self._reach)
        # The finest grid is the largest by far, and no one reads it once the tables are there.
        tables = replace(tables, rows=[tables.rows[0].new_zeros(0, 0, 0), *tables.rows[1:]])
        return BodyFrame(rotation, translation, low, box, self._voxel_size, tables, near)
