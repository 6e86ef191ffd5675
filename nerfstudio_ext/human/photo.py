"""A photograph of a person as networks read it, what its two sides look like, and lessons from people who are known."""

from dataclasses import dataclass, replace
from typing import Optional, Tuple

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_ext.human.body_surface import BodySurface
from nerfstudio_ext.human.photo_camera import PhotoCamera, frame_pictures, from_pinhole
from nerfstudio_ext.human.subject import Subject

SPAN = 0.85
"""Share of a framed photo's side that the person takes."""


@dataclass(frozen=True)
class Photo:
    """Square photographs of people, cut out and framed alike."""

    rgb: Float[Tensor, "batch 3 size size"]
    """In [0, 1], black beside the person."""
    mask: Float[Tensor, "batch 1 size size"]
    camera: PhotoCamera
    keypoints: Float[Tensor, "batch k 3"]
    """World frame, metres."""
    bodies: Optional[Tuple[BodySurface, ...]] = None
    """Of each person, without clothes; only what ICON's body features and visibility are made from needs them."""

    @classmethod
    def of(cls, subject: Subject, view: int, size: int, device: torch.device) -> "Photo":
        """One of a person's pictures, framed to `size` pixels."""
        rgb = subject.rgb[view].permute(2, 0, 1)[None].float() / 255
        mask = subject.mask[view][None, None].float()
        height, width = mask.shape[-2:]
        camera = from_pinhole(subject.poses[view][None], subject.intrinsics[view][None], width, height)
        rgb, mask, camera = frame_pictures(rgb, mask, camera, size, SPAN)
        return cls(rgb.to(device), mask.to(device), camera.to(device), subject.keypoints[None].to(device))

    def about(self, place: Float[Tensor, "3"]) -> "Photo":
        """The same in a world whose origin is at a place of this one; without bodies."""
        motion = self.camera.world_to_camera
        shift = motion[..., 3] + motion[..., :3] @ place
        camera = replace(self.camera, world_to_camera=torch.cat([motion[..., :3], shift[..., None]], dim=-1))
        return Photo(self.rgb, self.mask, camera, self.keypoints - place)

    def to(self, device: torch.device) -> "Photo":
        """The photographs on a device."""
        parts = (self.rgb.to(device), self.mask.to(device), self.camera.to(device), self.keypoints.to(device))
        return Photo(*parts, self.bodies)


@dataclass(frozen=True)
class Sides:
    """What the two sides of people look like; normals in the frame of the camera, unit length, 0 beside the mask."""

    normals: Float[Tensor, "batch 3 size size"]
    back_normals: Float[Tensor, "batch 3 size size"]
    back_rgb: Float[Tensor, "batch 3 size size"]
    """In [0, 1]."""


@dataclass(frozen=True)
class Lesson:
    """Photographs of different people, and the truth about them."""

    photo: Photo
    sides: Sides
    points: Float[Tensor, "batch n 3"]
    """World frame."""
    inside: Float[Tensor, "batch n"]
    """1 inside the person, 0 outside."""

    def to(self, device: torch.device) -> "Lesson":
        """The lesson on a device."""
        photo, sides = self.photo, self.sides
        return Lesson(
            photo.to(device),
            Sides(sides.normals.to(device), sides.back_normals.to(device), sides.back_rgb.to(device)),
            self.points.to(device),
            self.inside.to(device),
        )
