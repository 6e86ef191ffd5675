"""Where a point is relative to sparse 3-D keypoints, as cameras see it (KeypointNeRF, section 3.2), and the encodings
that the paper compares it with.

Camera frames are OpenCV's (x right, y down, z forward), so the third coordinate is the depth; lengths are in whatever
unit the keypoints have: metres for people in the world, cube units for a normalised photo.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

EncodingMode = Literal[
    "none", "z", "camera_xyz", "world_xyz", "rel_z", "rel_z_decay", "rel_camera_xyz", "rel_world_xyz"
]
"""none; depth; position in the camera's or the world's frame; the same as offsets from every keypoint; `decay` fades
each offset with the distance from its keypoint (the method's own)."""


def encoded_width(mode: EncodingMode, keypoints: int, octaves: int) -> int:
    """Numbers in the code of one point in one view.

    Args:
        mode: Encoding.
        keypoints: How many there are.
        octaves: Frequencies pi, 2 pi, 4 pi, ... beside the plain value.
    """
    axes = {"none": 0, "z": 1, "rel_z": 1, "rel_z_decay": 1}.get(mode, 3)
    return axes * (keypoints if mode.startswith("rel_") else 1) * (1 + 2 * octaves)


def encode_points(
    points: Float[Tensor, "n 3"],
    keypoints: Float[Tensor, "k 3"],
    world_to_camera: Float[Tensor, "views 3 4"],
    mode: EncodingMode,
    octaves: int,
    sigma: float,
) -> Float[Tensor, "views n width"]:
    """Codes of world points for every view.

    Bands are the outer, keypoints the inner order: all offsets, then the sines of the lowest frequency, its cosines,
    and so on. A code of `rel_z_decay` at distance r from its keypoint is weighted with exp(-r^2 / (2 sigma^2)); the
    weights are not normalised, so far from every keypoint the code vanishes.

    Args:
        points: World frame.
        keypoints: World frame; always in the same order.
        world_to_camera: Rigid motions into the frames of the views.
        mode: Encoding.
        octaves: Frequencies pi, 2 pi, 4 pi, ... beside the plain value.
        sigma: Reach of a keypoint, only for `rel_z_decay`.
    """
    views, count = len(world_to_camera), len(points)
    if mode == "none":
        return points.new_zeros(views, count, 0)
    if mode in ("world_xyz", "rel_world_xyz"):
        places = points.expand(views, -1, -1)
        anchors = keypoints.expand(views, -1, -1)
    else:
        places, anchors = (to_cameras(x, world_to_camera) for x in (points, keypoints))
    if mode in ("z", "rel_z", "rel_z_decay"):
        places, anchors = places[..., 2:], anchors[..., 2:]
    if not mode.startswith("rel_"):
        return _bands(places, octaves).flatten(2)
    offsets = places[:, :, None] - anchors[:, None]
    bands = _bands(offsets.transpose(2, 3).flatten(2), octaves).unflatten(-1, (-1, len(keypoints)))
    if mode == "rel_z_decay":
        bands = bands * keypoint_weights(points, keypoints, sigma)[:, None, None]
    return bands.flatten(2)


def keypoint_weights(
    points: Float[Tensor, "n 3"], keypoints: Float[Tensor, "k 3"], sigma: float
) -> Float[Tensor, "n k"]:
    """How much each keypoint says about each point: 1 at the keypoint, exp(-1/2) at the distance sigma."""
    # Differences, not the expanded square: that one loses millimetres far from the origin.
    squares = (points[:, None] - keypoints).square().sum(-1)
    return torch.exp(-squares / (2 * sigma**2))


def to_cameras(points: Float[Tensor, "n 3"], world_to_camera: Float[Tensor, "views 3 4"]) -> Float[Tensor, "views n 3"]:
    """World points in the frame of each view."""
    return points @ world_to_camera[..., :3].transpose(1, 2) + world_to_camera[:, None, :, 3]


def relative_directions(
    points: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    world_to_camera: Float[Tensor, "views 3 4"],
    frame: Literal["camera", "world"],
) -> Float[Tensor, "views n 4"]:
    """How the ray on which a point is wanted differs from the one on which each view sees it.

    Three numbers are the unit difference of the two directions, the last is their cosine. In the frame of the seeing
    camera the result, like everything else of the method, does not change when the world is moved rigidly; the
    released code leaves it in the world's frame.

    Args:
        points: World frame.
        directions: Unit directions of the wanted rays.
        world_to_camera: Rigid motions into the frames of the views.
        frame: Of the difference.
    """
    rotations, shifts = world_to_camera[..., :3], world_to_camera[..., 3]
    centres = -(rotations.transpose(1, 2) @ shifts[..., None])[..., 0]
    seen = torch.nn.functional.normalize(points - centres[:, None], dim=-1)
    difference = torch.nn.functional.normalize(directions - seen, dim=-1, eps=1e-6)
    if frame == "camera":
        difference = difference @ rotations.transpose(1, 2)
    cosine = (directions * seen).sum(-1, keepdim=True)
    return torch.cat([difference, cosine], dim=-1)


def keypoint_box(keypoints: Float[Tensor, "k 3"], margin: float = 0.25, share: float = 0.2) -> Float[Tensor, "2 3"]:
    """Box along the world's axes in which the subject of these keypoints is, lower and upper corner.

    Args:
        keypoints: World frame, metres.
        margin: Least room beside the keypoints; the top of the head and the hands lie outside of them.
        share: Room as a share of the extent along the axis, where that is more.
    """
    low, high = keypoints.amin(0), keypoints.amax(0)
    room = (share * (high - low)).clamp(min=margin)
    return torch.stack([low - room, high + room])


def _bands(values: Float[Tensor, "views n width"], octaves: int) -> Float[Tensor, "views n bands width"]:
    """The values, then sines and cosines of each frequency."""
    parts = [values]
    for octave in range(octaves):
        angles = values * (math.pi * 2**octave)
        parts += [torch.sin(angles), torch.cos(angles)]
    return torch.stack(parts, dim=2)
