"""A skirt that no skeleton drives: it hangs on the waist, lags behind its turns and swings in a rhythm of its own."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.skinning import rotation_matrix

WAIST, HEM = 0.60, 0.38
"""Heights, as shares of the person's."""
TORSO = 0.24
"""Metres to either side of the middle; what is further out at the waist's height is an arm."""
FLARE = 0.19
"""Metres that the hem is wider than the waist: room for a stride."""
LAG, SWING, WAVE = math.radians(20), 0.07, 0.035
"""Of the hem: angle behind the body, and metres that it swings and that its folds run in and out."""
RINGS, SECTORS = 10, 72


@dataclass(frozen=True)
class Skirt:
    """An open surface, world frame, metres."""

    vertices: Float[Tensor, "frames vertices 3"]
    faces: Int[Tensor, "faces 3"]
    colours: Float[Tensor, "vertices 3"]


def skirt(motion: BodyMotion) -> Skirt:
    """The skirt in every frame of a motion.

    Args:
        motion: Of a body whose rest is known; z is up.
    """
    rest = motion.rest
    assert rest is not None, "drawn bodies know their rest"
    floor, height = rest[:, 2].amin(), rest[:, 2].amax() - rest[:, 2].amin()
    middle = rest[:, 0].mean()
    band = ((rest[:, 2] - floor) / height - WAIST).abs() < 0.03
    torso = rest[band & ((rest[:, 0] - middle).abs() < TORSO)]
    low, high = torso[:, :2].amin(0), torso[:, :2].amax(0)
    centre, waist = 0.5 * (low + high), 0.5 * (high - low) + 0.01

    down, around = torch.meshgrid(
        torch.linspace(0, 1, RINGS), torch.linspace(0, 2 * math.pi, SECTORS + 1)[:-1], indexing="ij"
    )
    down, around = down.flatten(), around.flatten()
    frames = len(motion.vertices)
    phase = torch.linspace(0, 2 * math.pi, frames + 1)[:-1, None]
    # Nothing here knows how the legs stand: one swing and a half, and folds that run round, per stride.
    folds = WAVE * down * torch.sin(6 * around - 2 * phase)
    reach = waist + (FLARE * down + folds)[..., None]
    shape = torch.stack([torch.cos(around), torch.sin(around)], dim=-1) * reach + centre
    sway = torch.stack([torch.sin(1.5 * phase + 1), torch.cos(1.5 * phase)], dim=-1)
    flat = shape + SWING * down[:, None] ** 2 * sway
    z = (floor + height * (WAIST - (WAIST - HEM) * down)).expand(frames, -1)
    local = torch.cat([flat, z[..., None]], dim=-1)
    behind = rotation_matrix(torch.stack([0 * down, 0 * down, -LAG * down], dim=-1))
    turned = (behind @ local[..., None])[..., 0] @ rotation_matrix(motion.root_rotation).transpose(1, 2)
    return Skirt(turned + motion.root_translation[:, None], _faces(), _paint(down, around))


def _faces() -> Int[Tensor, "faces 3"]:
    ring, sector = torch.meshgrid(torch.arange(RINGS - 1), torch.arange(SECTORS), indexing="ij")
    a, b = (ring * SECTORS + sector).flatten(), (ring * SECTORS + (sector + 1) % SECTORS).flatten()
    return torch.cat([torch.stack([a, a + SECTORS, b], dim=-1), torch.stack([b, a + SECTORS, b + SECTORS], dim=-1)])


def _paint(down: Float[Tensor, "n"], around: Float[Tensor, "n"]) -> Float[Tensor, "n 3"]:
    """Green and cream in turn, so that its motion shows."""
    share = (0.5 + 0.5 * torch.tanh(5 * torch.sin(9 * around)) * (1 - 0.3 * down))[:, None]
    return share * torch.tensor([0.15, 0.60, 0.30]) + (1 - share) * torch.tensor([0.92, 0.88, 0.70])
