"""New poses for a body that exists: the drawn person's walk, in the build and at the place of a fitted body."""

from pathlib import Path

import numpy as np
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_build import scaled_body
from nerfstudio_ext.human.body_motion import BodyMotion, read_body
from nerfstudio_ext.human.skinning import rotation_matrix
from nerfstudio_ext.procedural.human import PHENOTYPE, walk


def walk_like(like: Path, frames: int, turn: float) -> BodyMotion:
    """A stride on the spot for the body in a file, upright where the body stood in its first frame.

    Args:
        like: A `body.npz` of the body model anny; of the build that `ns-ext human fit` noted there, or the drawn one's.
        frames: Of the new motion.
        turn: Degrees that it turns.

    Raises:
        InputError: The file is no body, or of another body model.
    """
    model = read_body(like)
    with np.load(like) as archive:
        names = [str(name) for name in archive["phenotype_names"]] if "phenotype_names" in archive else []
        phenotype = dict(zip(names, archive["phenotype_values"].tolist())) if names else PHENOTYPE
        size = float(archive["size"]) if "size" in archive else 1.0
    body = scaled_body(phenotype, size)
    if len(body.rest_vertices) != model.vertices.shape[1]:
        raise InputError(
            f"{like} has {model.vertices.shape[1]} vertices and the body model anny {len(body.rest_vertices)}: only "
            f"a body "
            "that was drawn or fitted here can walk."
        )
    motion = walk(body, frames, turn)
    # Upright along the axis of the world that the body's height lay nearest to.
    along = rotation_matrix(model.root_rotation[0])[:, 2]
    axis = int(along.abs().argmax())
    up = torch.eye(3)[axis] * along[axis].sign()
    z = torch.tensor([0.0, 0.0, 1.0])
    cross = torch.linalg.cross(z, up)
    turned = torch.eye(3) if float(cross.norm()) < 1e-6 else rotation_matrix(cross * (torch.pi / 2))
    if float(z @ up) < -0.5:
        turned = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    vertices = motion.vertices @ turned.T
    shift = _middle(model.vertices[0]) - _middle(vertices[0])
    return BodyMotion(
        vertices + shift,
        motion.faces,
        torch.stack([_vector(turned @ rotation_matrix(root)) for root in motion.root_rotation]),
        motion.root_translation @ turned.T + shift,
        motion.rest,
    )


def _middle(vertices: torch.Tensor) -> torch.Tensor:
    return 0.5 * (vertices.amin(0) + vertices.amax(0))


def _vector(rotation: torch.Tensor) -> torch.Tensor:
    from scipy.spatial.transform import Rotation

    return torch.from_numpy(Rotation.from_matrix(rotation.double().numpy()).as_rotvec()).float()
