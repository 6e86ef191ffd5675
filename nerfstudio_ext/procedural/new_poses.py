"""New poses for a body that exists: a walk with hanging arms, in the build and at the place of a fitted body."""

import math

import torch
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_build import scaled_body
from nerfstudio_ext.human.body_model import BodyModel
from nerfstudio_ext.human.body_motion import BodyMotion, Build
from nerfstudio_ext.human.skinning import rotation_matrix
from nerfstudio_ext.procedural.human import PHENOTYPE

SAME = 1e-4
"""Metres between vertices of one body at rest."""


def stride(body: BodyModel, frames: int, turn: float) -> BodyMotion:
    """Two steps on the spot, arms beside the body and swinging against the legs: poses that no drawn capture has, whose
    arms are raised.

    Args:
        body: An anny body; stands on +z, looks along -y, metres.
        frames: That the two steps are divided into; the last leads to the first.
        turn: Degrees that it turns meanwhile.
    """
    phase = torch.linspace(0, 2 * math.pi, frames + 1)[:-1]
    swing, zero, one = torch.sin(phase), torch.zeros(frames), torch.ones(frames)
    # A knee is bent while its leg comes forward, most of all shortly before it passes the other.
    left, right = ((0.5 + 0.5 * side * torch.cos(phase + 0.5)).square() for side in (1, -1))

    def about(x: Tensor = zero, y: Tensor = zero, z: Tensor = zero) -> Tensor:
        return torch.stack([x, y, z], dim=-1)

    rotations = body.rotations(
        {
            "upperleg01.L": about(x=-0.45 * swing - 0.25 * left),
            "upperleg01.R": about(x=0.45 * swing - 0.25 * right),
            "lowerleg01.L": about(x=0.1 + 0.8 * left),
            "lowerleg01.R": about(x=0.1 + 0.8 * right),
            "upperarm01.L": about(x=0.4 * swing, y=0.5 * one),
            "upperarm01.R": about(x=-0.4 * swing, y=-0.5 * one),
            "lowerarm01.L": about(x=-0.25 * one),
            "lowerarm01.R": about(x=-0.25 * one),
            "spine02": about(z=0.12 * swing),
        }
    )
    root = about(z=math.radians(turn) * torch.linspace(0, 1, frames))
    shift = about(z=0.02 * torch.cos(2 * phase))
    vertices = body.pose(rotations) @ rotation_matrix(root).transpose(1, 2) + shift[:, None]
    return BodyMotion(vertices, body.faces, root, shift, body.rest_vertices)


def walk_like(like: BodyMotion, where: str, frames: int, turn: float) -> BodyMotion:
    """`stride` for a body, upright where it stood in its first frame.

    Args:
        like: A motion of the body model anny, which says its build or rests as the drawn person does.
        where: It is from, for messages.
        frames: Of the new motion.
        turn: Degrees that it turns.

    Raises:
        InputError: It is of another body model, or its build is not known.
    """
    body = _body_of(like, where)
    motion = stride(body, frames, turn)
    # Upright along the axis of the world that the body's height lay nearest to.
    along = rotation_matrix(like.root_rotation[0])[:, 2]
    axis = int(along.abs().argmax())
    up = torch.eye(3)[axis] * along[axis].sign()
    z = torch.tensor([0.0, 0.0, 1.0])
    cross = torch.linalg.cross(z, up)
    turned = torch.eye(3) if float(cross.norm()) < 1e-6 else rotation_matrix(cross * (torch.pi / 2))
    if float(z @ up) < -0.5:
        turned = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    vertices = motion.vertices @ turned.T
    shift = _middle(like.vertices[0]) - _middle(vertices[0])
    return BodyMotion(
        vertices + shift,
        motion.faces,
        torch.stack([_vector(turned @ rotation_matrix(root)) for root in motion.root_rotation]),
        motion.root_translation @ turned.T + shift,
        motion.rest,
        like.build,
    )


def _body_of(like: BodyMotion, where: str) -> BodyModel:
    """The body model at rest that a motion is of."""
    build = like.build or Build(PHENOTYPE)
    body = scaled_body(build.phenotype, build.size)
    if len(body.rest_vertices) != like.vertices.shape[1]:
        raise InputError(
            f"{where} has {like.vertices.shape[1]} vertices and the body model anny {len(body.rest_vertices)}: only a "
            "body that was drawn or fitted here can walk."
        )
    if like.build is None and (like.rest is None or float((like.rest - body.rest_vertices).abs().max()) > SAME):
        raise InputError(
            f"{where} does not say which build its body has (phenotype_names and phenotype_values), so that no other "
            "motion can be made for it: name the body.npz that 'ns-ext human fit' or 'ns-ext human make' wrote."
        )
    return body


def _middle(vertices: torch.Tensor) -> torch.Tensor:
    return 0.5 * (vertices.amin(0) + vertices.amax(0))


def _vector(rotation: torch.Tensor) -> torch.Tensor:
    from scipy.spatial.transform import Rotation

    return torch.from_numpy(Rotation.from_matrix(rotation.double().numpy()).as_rotvec()).float()
