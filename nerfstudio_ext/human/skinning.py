"""Linear blend skinning, differentiable: from joint rotations to posed vertices, and back to the rest pose.

Rotations are about the joints, in axes parallel to the world's. With rest joint h_c of bone c and its parent p,
T_c = T_p [I | h_c] [D_c | 0] [I | -h_c], and a vertex moves by the mean of its bones' T, weighted.
"""

from typing import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def rotation_matrix(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of axis-angle vectors in radians (Rodrigues' formula)."""
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(skew)


def bone_transforms(
    rotations: Float[Tensor, "batch joints 3 3"], joints: Float[Tensor, "*batch joints 3"], parents: Sequence[int]
) -> Float[Tensor, "batch joints 4 4"]:
    """Rigid motion of each bone from the rest pose, metres.

    Args:
        rotations: Of each bone against its parent, about its joint.
        joints: Rest positions.
        parents: Index of each bone's parent, which precedes it; negative for a root.
    """
    offsets = joints - (rotations @ joints[..., None])[..., 0]
    local = torch.cat([rotations, offsets[..., None]], dim=-1)
    last = local.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*local.shape[:2], 1, 4)
    local = torch.cat([local, last], dim=-2)
    chain = []
    for bone, parent in enumerate(parents):
        chain.append(local[:, bone] if parent < 0 else chain[parent] @ local[:, bone])
    return torch.stack(chain, dim=1)


def skin(
    vertices: Float[Tensor, "*batch vertices 3"],
    weights: Float[Tensor, "vertices joints"],
    transforms: Float[Tensor, "batch joints 4 4"],
) -> Float[Tensor, "batch vertices 3"]:
    """Vertices at rest, of all poses or of each, moved to the pose."""
    blended = torch.einsum("vj,bjkl->bvkl", weights, transforms)
    return (blended[..., :3] @ vertices[..., None])[..., :3, 0] + blended[..., :3, 3]


def unskin(
    vertices: Float[Tensor, "batch vertices 3"],
    weights: Float[Tensor, "vertices joints"],
    transforms: Float[Tensor, "batch joints 4 4"],
) -> Float[Tensor, "batch vertices 3"]:
    """Posed vertices brought back to rest, with the weights they have there."""
    blended = torch.einsum("vj,bjkl->bvkl", weights, transforms)
    return torch.linalg.solve(blended[..., :3, :3], vertices - blended[..., :3, 3])
