"""From signed distance to opacity and to a picture: as a density (VolSDF, Yariv et al. 2021, section 3.1), or as the
opacity of each interval (NeuS, Wang et al. 2021, section 3.1)."""

from typing import Optional, Tuple, Union

import torch
from jaxtyping import Float
from torch import Tensor, nn


def laplace_density(
    sdf: Float[Tensor, "*batch"], beta: Union[float, Float[Tensor, "*#batch"]]
) -> Float[Tensor, "*batch"]:
    """Density 1/beta times the Laplace distribution function of -sdf: half of 1/beta on the surface (Eq. 2).

    Args:
        sdf: Signed distance in world units, negative inside.
        beta: Scale of the distribution in world units.
    """
    return (0.5 - 0.5 * sdf.sign() * -torch.expm1(-sdf.abs() / beta)) / beta


class LaplaceDensity(nn.Module):
    """`laplace_density` with a scale that stays above a minimum, and is learned or follows a schedule.

    Args:
        initial: Scale at the start, less the minimum, in world units.
        minimum: The least scale.
        final: Scale at the end of training, for the schedule; none: learned.
    """

    def __init__(self, initial: float, minimum: float, final: Optional[float] = None) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor(float(initial)), requires_grad=final is None)
        self.initial, self.minimum, self.final = initial + minimum, minimum, final

    @torch.no_grad()
    def anneal(self, progress: float) -> None:
        """Set the scale after a share of the training, 0 to 1, where a schedule does (BakedSDF, Yariv et al. 2023)."""
        if self.final is not None:
            beta = self.initial / (1 + (self.initial - self.final) / self.final * progress**0.8)
            self.raw.fill_(beta - self.minimum)

    @property
    def beta(self) -> Float[Tensor, ""]:
        """Scale in world units."""
        return self.raw.abs() + self.minimum

    def forward(self, sdf: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return laplace_density(sdf, self.beta)


def render_weights(
    density: Float[Tensor, "rays samples"], deltas: Float[Tensor, "rays samples"]
) -> Tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays"]]:
    """Share of each sample in its pixel, and what shines through behind the last one; together they sum to one.

    Args:
        density: Per world unit.
        deltas: Lengths of the intervals that the samples stand for.
    """
    energy = density * deltas
    total = torch.cumsum(energy, dim=-1)
    # Not total - energy: a huge last interval would round away all that is in front of it.
    before = torch.cat([torch.zeros_like(total[:, :1]), total[:, :-1]], dim=-1)
    return -torch.expm1(-energy) * torch.exp(-before), torch.exp(-total[:, -1])


def logistic_alpha(
    sdf: Float[Tensor, "rays samples"], scale: Union[float, Float[Tensor, ""]]
) -> Float[Tensor, "rays samples"]:
    """Opacity of the interval that begins at each sample (NeuS Eq. 13): how far the logistic function falls within it.

    The last interval, which has no other end, is clear; where the distance grows, nothing is opaque.

    Args:
        sdf: Signed distance in world units, negative inside, in the order of the samples.
        scale: Of the logistic distribution in world units; NeuS calls its inverse s.
    """
    inside = torch.nn.functional.logsigmoid(sdf / scale)
    falls = -torch.expm1((inside[:, 1:] - inside[:, :-1]).clamp(max=0))
    return torch.cat([falls, torch.zeros_like(falls[:, :1])], dim=-1)


def alpha_weights(
    alpha: Float[Tensor, "rays samples"],
) -> Tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays"]]:
    """As `render_weights`, from the opacities of intervals."""
    clear = torch.cumprod(1 - alpha, dim=-1)
    before = torch.cat([torch.ones_like(clear[:, :1]), clear[:, :-1]], dim=-1)
    return alpha * before, clear[:, -1]
