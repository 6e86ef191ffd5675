"""Losses on the gradient of a signed distance."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def eikonal_loss(gradients: Float[Tensor, "*points 3"]) -> Float[Tensor, ""]:
    """Mean squared deviation of the gradient's length from one (IGR, Gropp et al. 2020)."""
    return (gradients.norm(dim=-1) - 1).square().mean()


def curvature_loss(gradients: Float[Tensor, "*points 3"], neighbours: Float[Tensor, "*points 3"]) -> Float[Tensor, ""]:
    """Mean distance between the unit normals of points and of near neighbours (as in UNISURF and MonoSDF)."""
    return (F.normalize(gradients, dim=-1) - F.normalize(neighbours, dim=-1)).norm(dim=-1).mean()
