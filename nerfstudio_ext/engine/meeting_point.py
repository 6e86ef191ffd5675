"""Where cameras look together."""

from typing import Tuple

import torch
from jaxtyping import Float
from torch import Tensor


def meeting_point(
    positions: Float[Tensor, "views 3"], forward: Float[Tensor, "views 3"]
) -> Tuple[Float[Tensor, "3"], bool]:
    """Least-squares meeting point of the optical axes.

    Returns:
        The point, and whether the axes are far enough from parallel to determine it; where they are not, the point
        lies in front of the cameras at a distance of three times their spread, or of 1 where all stand in one place.
    """
    positions, forward = positions.double(), torch.nn.functional.normalize(forward.double(), dim=-1)
    across = torch.eye(3, dtype=torch.float64) - forward[:, :, None] * forward[:, None, :]
    matrix = across.sum(0)
    if torch.linalg.cond(matrix) < 1e3:
        return torch.linalg.solve(matrix, (across @ positions[:, :, None]).sum(0))[:, 0].float(), True
    centre = positions.mean(0)
    spread = float((positions - centre).norm(dim=-1).max())
    reach = 3 * spread if spread > 0 else 1.0
    return (centre + reach * torch.nn.functional.normalize(forward.mean(0), dim=0)).float(), False
