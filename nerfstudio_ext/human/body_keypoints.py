"""Keypoints of a body of the free model that is only known by its posed vertices, as fits to captures are."""

from functools import lru_cache
from typing import Tuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_model import anny_body

REACH = 0.1
"""Metres about a joint within which skin says where it is, standard deviation."""


def body_keypoints(vertices: Float[Tensor, "vertices 3"], names: Tuple[str, ...]) -> Float[Tensor, "k 3"]:
    """Where joints of the body model are, world frame.

    Each is carried from the average body at rest by the similarity that brings the skin near it, as far as it moves
    with that joint's bone, to where it is.

    Args:
        vertices: Posed, metres.
        names: Joints of the body model.

    Raises:
        InputError: The vertices are not those of the body model.
    """
    rest, joints, weights, chosen = _average(names)
    if len(vertices) != len(rest):
        raise InputError(
            f"A body of {len(vertices)} vertices is not the free model's, which has {len(rest)}: fit one with "
            "ns-ext human fit."
        )
    found = []
    for joint, bone in zip(joints, chosen):
        near = torch.exp(-(rest - joint).square().sum(-1) / (2 * REACH**2))
        # A bone that carries no skin, as the root, goes with all of it.
        share = ((weights[:, bone] + 0.01) * near).double()
        found.append(_carried(rest.double(), vertices.double(), share / share.sum(), joint.double()))
    return torch.stack(found).float()


def _carried(rest: Tensor, posed: Tensor, share: Float[Tensor, "vertices"], point: Float[Tensor, "3"]) -> Tensor:
    """A point moved by the best similarity between two sets of weighted points (Umeyama, 1991)."""
    middles = [share @ x for x in (rest, posed)]
    one, other = rest - middles[0], posed - middles[1]
    u, values, vh = torch.linalg.svd(other.T @ (share[:, None] * one))
    sign = torch.ones(3, dtype=torch.double)
    sign[2] = torch.det(u @ vh).sign()
    scale = (values * sign).sum() / (share @ one.square().sum(-1))
    return scale * (u * sign) @ vh @ (point - middles[0]) + middles[1]


@lru_cache(4)
def _average(
    names: Tuple[str, ...],
) -> Tuple[Float[Tensor, "vertices 3"], Float[Tensor, "k 3"], Float[Tensor, "vertices joints"], Int[Tensor, "k"]]:
    """Vertices and chosen joints of the average body without rotations, skinning weights, and the joints' bones."""
    body = anny_body({})
    still = torch.eye(3).expand(1, len(body.parents), 3, 3)
    bones = torch.tensor([body.joint_names.index(name) for name in names])
    return body.pose(still)[0], body.pose_joints(still)[0, bones], body.weights, bones
