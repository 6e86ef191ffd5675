"""New poses for a body that exists: the drawn person's walk, in the build and at the place of a fitted body."""

import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_build import scaled_body
from nerfstudio_ext.human.body_model import BodyModel
from nerfstudio_ext.human.body_motion import BodyMotion, Build
from nerfstudio_ext.human.skinning import rotation_matrix
from nerfstudio_ext.procedural.human import PHENOTYPE, walk

SAME = 1e-4
"""Metres between vertices of one body at rest."""


def walk_like(like: BodyMotion, where: str, frames: int, turn: float) -> BodyMotion:
    """A stride on the spot for a body, upright where it stood in its first frame.

    Args:
        like: A motion of the body model anny, which says its build or rests as the drawn person does.
        where: It is from, for messages.
        frames: Of the new motion.
        turn: Degrees that it turns.

    Raises:
        InputError: It is of another body model, or its build is not known.
    """
    body = _body_of(like, where)
    motion = walk(body, frames, turn)
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
