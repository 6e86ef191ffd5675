"""The camera of one photograph: full perspective where its focal length is known, weak perspective where it is not.

Its frame has OpenCV's axes (x right, y down, z forward) and metres. Pictures are square; positions in them run from -1
to 1 between the outer edges of the first and the last pixel, x to the right and y down.
"""

from dataclasses import dataclass, replace
from typing import Tuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class PhotoCamera:
    """A batch of cameras; u = focal x / z + centre with perspective, u = focal x + centre without."""

    world_to_camera: Float[Tensor, "batch 3 4"]
    """Rigid motions."""
    focal: Float[Tensor, "batch 1"]
    """Half pictures per unit of x / z, or per metre in weak perspective."""
    centre: Float[Tensor, "batch 2"]
    """Where the optical axis meets the picture."""
    perspective: Bool[Tensor, "batch 1"]

    def to(self, device: torch.device) -> "PhotoCamera":
        return PhotoCamera(*(x.to(device) for x in self.tensors()))

    def tensors(self) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.world_to_camera, self.focal, self.centre, self.perspective

    def local(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 3"]:
        """World points in the frames of the cameras."""
        return points @ self.world_to_camera[..., :3].transpose(1, 2) + self.world_to_camera[:, None, :, 3]

    def project(self, local: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 2"]:
        """Positions in the pictures of points in the frames of the cameras; they mean nothing behind a camera."""
        depth = torch.where(self.perspective[:, None], local[..., 2:], torch.ones_like(local[..., 2:]))
        scale = self.focal[:, None] / depth.clamp(min=1e-3)
        return local[..., :2] * scale + self.centre[:, None]

    def rays(self, size: int) -> Tuple[Float[Tensor, "batch pixels 3"], Float[Tensor, "batch pixels 3"]]:
        """Origins and unit directions, in the world, of the rays through the pixel centres, row by row.

        Weak perspective has no centre of projection: its rays start on the plane z = 0 of the camera's frame.
        """
        axis = (torch.arange(size, device=self.focal.device) + 0.5) * (2 / size) - 1
        v, u = torch.meshgrid(axis, axis, indexing="ij")
        plane = (torch.stack([u, v], dim=-1).reshape(1, -1, 2) - self.centre[:, None]) / self.focal[:, None]
        full, zero, one = self.perspective[:, None], torch.zeros_like(plane), torch.ones_like(plane[..., :1])
        ways = torch.cat([torch.where(full, plane, zero), one], dim=-1)
        starts = torch.cat([torch.where(full, zero, plane), torch.zeros_like(one)], dim=-1)
        rotations, shifts = self.world_to_camera[..., :3], self.world_to_camera[:, None, :, 3]
        return (starts - shifts) @ rotations, F.normalize(ways, dim=-1) @ rotations

    def window(self, middle: Float[Tensor, "batch 2"], half: Float[Tensor, "batch 1"]) -> "PhotoCamera":
        """The cameras of squares cut out of the pictures, by their middles and half their sides."""
        return replace(self, focal=self.focal / half, centre=(self.centre - middle) / half)

    def __getitem__(self, chosen: Tensor) -> "PhotoCamera":
        return PhotoCamera(*(x[chosen] for x in self.tensors()))


def from_pinhole(
    pose: Float[Tensor, "batch 3 4"], intrinsics: Float[Tensor, "batch 4"], width: int, height: int
) -> PhotoCamera:
    """Cameras of pictures of one size, of square pixels, that are padded to squares about their middles.

    Args:
        pose: Camera to world, OpenGL axes.
        intrinsics: fx, fy, cx, cy in pixels; fy serves both axes.
        width: Pixels.
        height: Pixels.
    """
    # From OpenGL's camera axes to OpenCV's: y and z turn round.
    rotations = (pose[..., :3] * pose.new_tensor([1.0, -1.0, -1.0])).transpose(1, 2)
    world_to_camera = torch.cat([rotations, -(rotations @ pose[..., 3:])], dim=-1)
    half = max(width, height) / 2
    centre = (intrinsics[:, 2:] - intrinsics.new_tensor([width / 2, height / 2])) / half
    full = torch.ones(len(pose), 1, dtype=torch.bool, device=pose.device)
    return PhotoCamera(world_to_camera, intrinsics[:, 1:2] / half, centre, full)


def frame_pictures(
    pictures: Float[Tensor, "batch c height width"],
    mask: Float[Tensor, "batch 1 height width"],
    camera: PhotoCamera,
    size: int,
    span: float,
) -> Tuple[Float[Tensor, "batch c size size"], Float[Tensor, "batch 1 size size"], PhotoCamera]:
    """Squares around the masked person, which takes `span` of their side; black beside it.

    Args:
        pictures: In [0, 1].
        mask: 1 on the person; each has some.
        camera: Of the pictures, padded to squares.
        size: Pixels along a side of the squares.
        span: Share.
    """
    height, width = mask.shape[-2:]
    side, batch = max(height, width), len(mask)
    middles, halves = [], []
    for one in mask[:, 0] > 0.5:
        rows, columns = (torch.nonzero(one.any(1 - axis))[:, 0] for axis in (0, 1))
        low = torch.stack([columns[0] - width / 2, rows[0] - height / 2])
        high = torch.stack([columns[-1] + 1 - width / 2, rows[-1] + 1 - height / 2])
        middles.append((low + high) / side)
        halves.append((high - low).max() / (side * span))
    middle, half = torch.stack(middles), torch.stack(halves)[:, None]
    both = torch.cat([pictures * mask, mask], dim=1)
    # Averaged before it is shrunk, so that no pixel of a large photo is passed over.
    times = int((half.max() * side / size).floor().clamp(min=1))
    if times > 1:
        both = F.avg_pool2d(F.pad(both, (0, -width % times, 0, -height % times)), times)
    axis = (torch.arange(size, device=mask.device) + 0.5) * (2 / size) - 1
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    places = middle[:, None, None] + half[:, None, None] * torch.stack([u, v], dim=-1)
    # From the padded square to the (reduced) picture itself, which is what grid_sample reads.
    reduced = both.new_tensor([both.shape[-1], both.shape[-2]]) * times
    offset = both.new_tensor([width, height])
    grid = (places * side + offset) / reduced - 1
    sampled = F.grid_sample(both, grid.expand(batch, -1, -1, -1), align_corners=False)
    inside = (sampled[:, -1:] > 0.5).float()
    colours = sampled[:, :-1] / sampled[:, -1:].clamp(min=1e-3) * inside
    return colours.clamp(0, 1), inside, camera.window(middle, half)
