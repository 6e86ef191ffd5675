"""One person seen by several calibrated cameras, and collections of such people that are read one at a time."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Optional, Sequence, Tuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_ext.human.body_surface import BodySurface
from nerfstudio_ext.human.keypoint_encoding import keypoint_box


@dataclass(frozen=True)
class Subject:
    """Pictures of a person at one moment. Metres, world frame; camera-to-world poses with OpenGL axes."""

    name: str
    rgb: UInt8[Tensor, "views height width 3"]
    """Black beside the person."""
    mask: Bool[Tensor, "views height width"]
    poses: Float[Tensor, "views 3 4"]
    intrinsics: Float[Tensor, "views 4"]
    """fx, fy, cx, cy in pixels; the centre of the first pixel is at 0.5."""
    keypoints: Float[Tensor, "k 3"]
    depth: Optional[Float[Tensor, "views height width"]] = None
    """Along the unit ray, 0 beside the person; where it is known."""
    normals: Optional[Float[Tensor, "views height width 3"]] = None
    """World frame, 0 beside the person; where they are known."""


class SubjectStore(ABC):
    """People in a fixed order. Pictures are read when they are asked for, so that memory does not grow with them."""

    keypoint_names: Tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int:
        """How many people there are."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Name of a person, which is also a folder's name."""

    @abstractmethod
    def cameras(self, index: int) -> Cameras:
        """All cameras around a person, without reading any picture."""

    @abstractmethod
    def subject(self, index: int) -> Subject:
        """A person's pictures.

        Raises:
            InputError: They cannot be read or drawn.
        """

    def mesh(self, index: int) -> Optional[Tuple[Float[Tensor, "vertices 3"], Int[Tensor, "faces 3"]]]:
        """The true surface, where it is known."""
        return None

    def body(self, index: int) -> Optional[BodySurface]:
        """The person without clothes, where it is known."""
        return None

    def scored_box(self, index: int) -> Float[Tensor, "2 3"]:
        """Lower and upper corner of what scores of the person's box are about: the samples' box around the keypoints,
        where nothing better is known."""
        return keypoint_box(self.subject(index).keypoints)

    def version(self, index: int) -> Tuple[Any, ...]:
        """Changes when a person's pictures do; drawn ones never change."""
        return ()

    def __deepcopy__(self, memo: dict) -> "SubjectStore":
        return self  # datasets copy their metadata; one store serves all of them


@dataclass(frozen=True)
class SourceViews:
    """What a generalising network is conditioned on: some views of one person."""

    rgb: Float[Tensor, "views 3 height width"]
    """In [0, 1], black beside the person."""
    mask: Float[Tensor, "views 1 height width"]
    world_to_camera: Float[Tensor, "views 3 4"]
    """OpenCV axes: x right, y down, z forward."""
    intrinsics: Float[Tensor, "views 4"]
    keypoints: Float[Tensor, "k 3"]

    @classmethod
    def of(cls, subject: Subject, views: Sequence[int], device: torch.device) -> "SourceViews":
        """These views of a person, on a device."""
        chosen = list(views)
        poses = subject.poses[chosen]
        # From OpenGL's camera axes to OpenCV's: y and z turn round.
        rotations = (poses[..., :3] * poses.new_tensor([1.0, -1.0, -1.0])).transpose(1, 2)
        shifts = -(rotations @ poses[..., 3:])
        return cls(
            rgb=subject.rgb[chosen].to(device).permute(0, 3, 1, 2).contiguous().float() / 255,
            mask=subject.mask[chosen].to(device)[:, None].float(),
            world_to_camera=torch.cat([rotations, shifts], dim=-1).to(device),
            intrinsics=subject.intrinsics[chosen].to(device),
            keypoints=subject.keypoints.to(device),
        )

    def project(self, points: Float[Tensor, "n 3"]) -> Tuple[Float[Tensor, "views n 2"], Float[Tensor, "views n"]]:
        """Pixel positions (x, y) and depths of world points; depths are not positive behind a camera."""
        local = points @ self.world_to_camera[..., :3].transpose(1, 2) + self.world_to_camera[:, None, :, 3]
        depth = local[..., 2]
        # Behind a camera the position means nothing; a finite number keeps gradients finite.
        safe = torch.where(depth.abs() < 1e-4, torch.full_like(depth, 1e-4), depth)
        focal, centre = self.intrinsics[:, None, :2], self.intrinsics[:, None, 2:]
        return local[..., :2] / safe[..., None] * focal + centre, depth
