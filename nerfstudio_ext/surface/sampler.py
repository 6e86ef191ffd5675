"""Samples along rays whose opacity error is bounded (VolSDF, Algorithm 1).

Here each ray stops on its own as soon as its bound holds; the published code lets the whole batch grow until the last
ray is done. `t` are positions along a ray, [rays, positions] and ascending; `d` the distances found there.
"""

import math
from dataclasses import dataclass
from typing import Callable, List, Tuple, Union

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_ext.surface.density import laplace_density, render_weights

SdfOnRays = Callable[[Int[Tensor, "rays"], Float[Tensor, "rays positions"]], Float[Tensor, "rays positions"]]
"""Signed distances at positions along some rays of the batch, which are given by their indices."""


@dataclass
class ErrorBoundedSampling:
    """How many samples to draw and how far to trust them; the defaults are VolSDF's."""

    samples_per_round: int = 128
    """Positions of the first, even grid, and those added in each further round."""
    final_samples: int = 64
    """Samples drawn where the weights are."""
    extra_samples: int = 32
    """Samples drawn from all positions that were looked at."""
    max_rounds: int = 5
    """Most rounds for a ray whose bound does not hold."""
    bisections: int = 10
    """Halvings in the search for the smallest scale whose bound holds."""
    epsilon: float = 0.1
    """Largest error of the opacity that is accepted."""

    @property
    def num_positions(self) -> int:
        """Positions returned per ray: samples and both ends."""
        return self.final_samples + self.extra_samples + 2


def distance_bound(
    deltas: Float[Tensor, "rays intervals"], sdf: Float[Tensor, "rays positions"]
) -> Float[Tensor, "rays intervals"]:
    """Lower bound of the distance to the surface within each interval, from the distances at both its ends.

    Two balls that are free of the surface cover part of the interval; 0 where the sign changes.
    """
    a, b, c = deltas, sdf[:, :-1].abs(), sdf[:, 1:].abs()
    half = (a + b + c) / 2
    area = torch.sqrt((half * (half - a) * (half - b) * (half - c)).clamp(min=0))
    height = torch.where(b + c > a, 2 * area / a.clamp(min=1e-12), torch.zeros_like(a))
    height = torch.where(a**2 + b**2 <= c**2, b, height)
    height = torch.where(a**2 + c**2 <= b**2, c, height)
    return torch.where(sdf[:, :-1].sign() * sdf[:, 1:].sign() == 1, height, torch.zeros_like(a))


def opacity_error_bound(
    deltas: Float[Tensor, "rays intervals"],
    sdf: Float[Tensor, "rays positions"],
    distances: Float[Tensor, "rays intervals"],
    beta: Union[float, Float[Tensor, "rays 1"]],
) -> Float[Tensor, "rays intervals"]:
    """Bound of the opacity's error up to each interval's end, for one scale per ray (VolSDF Eq. 12 to 14)."""
    energy = laplace_density(sdf[:, :-1], beta) * deltas
    total = torch.cumsum(energy, dim=-1)
    before = torch.cat([torch.zeros_like(total[:, :1]), total[:, :-1]], dim=-1)
    error = torch.cumsum(deltas**2 * torch.exp(-distances / beta) / (4 * beta**2), dim=-1)
    return torch.exp(-before) * (torch.exp(error).clamp(max=1e6) - 1)


def inverse_cdf(
    t: Float[Tensor, "rays positions"], weights: Float[Tensor, "rays intervals"], u: Float[Tensor, "rays samples"]
) -> Float[Tensor, "rays samples"]:
    """Positions at which the distribution with these weights per interval reaches the shares `u` in [0, 1]."""
    cdf = torch.cumsum(weights / weights.sum(-1, keepdim=True), dim=-1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], dim=-1)
    above = torch.searchsorted(cdf, u.contiguous(), right=True).clamp(1, t.shape[-1] - 1)
    low, high = cdf.gather(1, above - 1), cdf.gather(1, above)
    share = ((u - low) / (high - low).clamp(min=1e-8)).clamp(0, 1)
    start, end = t.gather(1, above - 1), t.gather(1, above)
    return start + share * (end - start)


def sample_lengths(
    t: Float[Tensor, "rays samples"], near: Float[Tensor, "rays"], far: Float[Tensor, "rays"]
) -> Float[Tensor, "rays samples"]:
    """Length of ray that each sample stands for: half-way to its neighbours, and to the ends near and far."""
    middle = (t[:, 1:] + t[:, :-1]) / 2
    edges = torch.cat([near[:, None], middle, far[:, None]], dim=-1)
    return edges[:, 1:] - edges[:, :-1]


def even_shares(rays: int, samples: int, stratified: bool, device: torch.device) -> Float[Tensor, "rays samples"]:
    """Even shares from 0 to 1 for every ray, ascending.

    Args:
        rays: Rays of the batch.
        samples: Shares of each; 2 at least.
        stratified: Move each at random within its cell, which reaches half-way to its neighbours.
        device: Where they are made.
    """
    shares = torch.linspace(0, 1, samples, device=device).expand(rays, -1)
    if not stratified:
        return shares
    middle = (shares[:, 1:] + shares[:, :-1]) / 2
    low, high = torch.cat([shares[:, :1], middle], dim=-1), torch.cat([middle, shares[:, -1:]], dim=-1)
    return low + (high - low) * torch.rand(rays, samples, device=device)


@torch.no_grad()
def sample_error_bounded(
    settings: ErrorBoundedSampling,
    near: Float[Tensor, "rays"],
    far: Float[Tensor, "rays"],
    sdf_on_rays: SdfOnRays,
    beta: float,
    stratified: bool,
) -> Float[Tensor, "rays positions"]:
    """Ascending positions along each ray, both ends included.

    Args:
        settings: Numbers of samples and the accepted error.
        near: Where rays begin, world units.
        far: Where they end, not before `near`.
        sdf_on_rays: The signed distance function.
        beta: Present scale of the density, world units.
        stratified: Draw at random, as training does; otherwise evenly.
    """
    count, device = len(near), near.device
    t = near[:, None] + (far - near)[:, None] * even_shares(count, settings.samples_per_round, stratified, device)
    rays = torch.arange(count, device=device)
    d = sdf_on_rays(rays, t)
    scale = torch.sqrt((t[:, 1:] - t[:, :-1]).square().sum(-1, keepdim=True) / (4 * math.log1p(settings.epsilon)))
    scale = scale.clamp(min=beta)
    result = torch.empty(count, settings.num_positions, device=device)
    for round_index in range(settings.max_rounds):
        deltas = t[:, 1:] - t[:, :-1]
        distances = distance_bound(deltas, d)
        scale, holds = _smallest_scale(settings, deltas, d, distances, beta, scale)
        done = holds if round_index + 1 < settings.max_rounds else torch.ones_like(holds)
        if bool(done.any()):
            ends = near[rays[done]], far[rays[done]]
            result[rays[done]] = _final(settings, t[done], d[done], scale[done], ends, stratified)
        if bool(done.all()):
            break
        rays, t, d, deltas, distances, scale = (x[~done] for x in (rays, t, d, deltas, distances, scale))
        errors = opacity_error_bound(deltas, d, distances, scale)
        u = torch.linspace(0, 1, settings.samples_per_round, device=device).expand(len(t), -1)
        new = inverse_cdf(t, errors + 1e-6, u)
        t, order = torch.sort(torch.cat([t, new], dim=-1), dim=-1)
        d = torch.cat([d, sdf_on_rays(rays, new)], dim=-1).gather(1, order)
    return result


def _smallest_scale(
    settings: ErrorBoundedSampling, deltas: Tensor, d: Tensor, distances: Tensor, beta: float, scale: Tensor
) -> Tuple[Float[Tensor, "rays 1"], Tensor]:
    """Smallest scale between beta and the present one whose bound holds, and whether it is beta itself."""
    holds = opacity_error_bound(deltas, d, distances, beta).amax(-1) <= settings.epsilon
    low, high = torch.full_like(scale, beta), scale
    for _ in range(settings.bisections):
        middle = (low + high) / 2
        fine = opacity_error_bound(deltas, d, distances, middle).amax(-1, keepdim=True) <= settings.epsilon
        low, high = torch.where(fine, low, middle), torch.where(fine, middle, high)
    return torch.where(holds[:, None], torch.full_like(scale, beta), high), holds


def _final(
    settings: ErrorBoundedSampling,
    t: Float[Tensor, "rays positions"],
    d: Float[Tensor, "rays positions"],
    scale: Float[Tensor, "rays 1"],
    ends: Tuple[Float[Tensor, "rays"], Float[Tensor, "rays"]],
    stratified: bool,
) -> Float[Tensor, "rays positions"]:
    """Samples by weight, some of the positions looked at, and both ends."""
    weights, _ = render_weights(laplace_density(d[:, :-1], scale), t[:, 1:] - t[:, :-1])
    if stratified:
        u = torch.rand(len(t), settings.final_samples, device=t.device)
        picks = torch.randperm(t.shape[-1], device=t.device)[: settings.extra_samples]
    else:
        u = torch.linspace(0, 1, settings.final_samples, device=t.device).expand(len(t), -1)
        picks = torch.linspace(0, t.shape[-1] - 1, settings.extra_samples, device=t.device).long()
    parts: List[Tensor] = [ends[0][:, None], inverse_cdf(t, weights + 1e-5, u), t[:, picks], ends[1][:, None]]
    return torch.cat(parts, dim=-1).sort(dim=-1).values
