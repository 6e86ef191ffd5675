import math

import pytest
import torch

from nerfstudio_ext.surface.density import laplace_density, render_weights
from nerfstudio_ext.surface.sampler import (
    ErrorBoundedSampling,
    _smallest_scale,
    distance_bound,
    even_shares,
    inverse_cdf,
    opacity_error_bound,
    sample_error_bounded,
    sample_lengths,
)

RADIUS = 0.5


def rays(count=64):
    """Rays that pass a ball at many distances from its centre."""
    origins = torch.stack([torch.linspace(-0.8, 0.8, count), torch.zeros(count), torch.full((count,), -2.0)], dim=-1)
    return origins, torch.tensor([0.0, 0.0, 1.0]).expand(count, 3)


def ball_on_rays(origins, directions, looked_at=None):
    def sdf(indices, t):
        if looked_at is not None:
            looked_at.append((indices, t))
        return (origins[indices, None] + t[..., None] * directions[indices, None]).norm(dim=-1) - RADIUS

    return sdf


def true_opacity(origins, directions, far, beta):
    t = torch.linspace(0, far, 20001, dtype=torch.float64)
    points = origins[:, None].double() + t[:, None] * directions[:, None].double()
    density = laplace_density(points.norm(dim=-1) - RADIUS, beta)
    return 1 - torch.exp(-torch.trapezoid(density, t, dim=-1))


def test_bound_of_the_distance_holds():
    origins, directions = rays()
    t = torch.linspace(0, 4, 30).expand(64, -1)
    d = ball_on_rays(origins, directions)(torch.arange(64), t)
    bound = distance_bound(t[:, 1:] - t[:, :-1], d)
    for share in torch.linspace(0, 1, 9):
        between = t[:, :-1] + share * (t[:, 1:] - t[:, :-1])
        there = ball_on_rays(origins, directions)(torch.arange(64), between).abs()
        assert (bound <= there + 1e-5).all()
    assert (bound[(d[:, :-1].sign() != d[:, 1:].sign())] == 0).all()
    assert bound.max() > 0.5


@pytest.mark.parametrize("beta", [0.3, 0.05, 0.01])
def test_bound_of_the_error_holds(beta):
    """Equation by equation against the integral on a very fine grid."""
    origins, directions = rays()
    t = torch.linspace(0, 4, 200).expand(64, -1)
    d = ball_on_rays(origins, directions)(torch.arange(64), t)
    deltas = t[:, 1:] - t[:, :-1]
    bound = opacity_error_bound(deltas, d, distance_bound(deltas, d), beta).amax(-1)
    _, behind = render_weights(laplace_density(d[:, :-1], beta), deltas)
    error = (1 - behind - true_opacity(origins, directions, 4.0, beta)).abs()
    assert (error <= bound + 1e-4).all()


@pytest.mark.parametrize("beta", [0.3, 0.05, 0.01])
def test_scale_that_is_chosen_keeps_the_bound(beta):
    """B(beta+) <= epsilon: finished rays hold it at beta, the others at the larger scale that was found."""
    origins, directions = rays()
    settings = ErrorBoundedSampling()
    t = torch.linspace(0, 4, 128).expand(64, -1)
    d = ball_on_rays(origins, directions)(torch.arange(64), t)
    deltas = t[:, 1:] - t[:, :-1]
    distances = distance_bound(deltas, d)
    start = torch.sqrt(deltas.square().sum(-1, keepdim=True) / (4 * math.log1p(settings.epsilon))).clamp(min=beta)
    scale, done = _smallest_scale(settings, deltas, d, distances, beta, start)
    bound = opacity_error_bound(deltas, d, distances, scale).amax(-1)
    assert (bound <= settings.epsilon * 1.001).all()
    assert (scale[done] == beta).all() and (scale[~done] > beta).all()
    closer = beta + (scale[~done] - beta) * 0.98
    tighter = opacity_error_bound(deltas[~done], d[~done], distances[~done], closer).amax(-1)
    assert (tighter > settings.epsilon).all(), "no smaller scale would do"


@pytest.mark.parametrize("beta", [0.1, 0.02])
def test_opacity_of_the_samples_is_right(beta):
    """Rendered from what the sampler returns, against the integral on a very fine grid; the bound holds there too."""
    origins, directions = rays()
    settings, sdf = ErrorBoundedSampling(), ball_on_rays(origins, directions)
    t = sample_error_bounded(settings, torch.zeros(64), torch.full((64,), 4.0), sdf, beta, stratified=False)
    d, deltas = sdf(torch.arange(64), t), t.diff(dim=-1)
    _, behind = render_weights(laplace_density(d[:, :-1], beta), deltas)
    error = (1 - behind - true_opacity(origins, directions, 4.0, beta)).abs()
    bound = opacity_error_bound(deltas, d, distance_bound(deltas, d), beta).amax(-1)
    assert (error <= bound + 1e-4).all()
    assert error.max() <= settings.epsilon and error.mean() < 0.02


def test_error_bound_against_a_loop():
    deltas, sdf = torch.rand(1, 6) * 0.1, torch.randn(1, 7) * 0.2
    distances, beta = torch.rand(1, 6) * 0.05, 0.07
    energy = error = 0.0
    for k in range(6):
        error += float(deltas[0, k]) ** 2 * math.exp(-float(distances[0, k]) / beta) / (4 * beta**2)
        expected = math.exp(-energy) * (min(math.exp(error), 1e6) - 1)
        bound = opacity_error_bound(deltas, sdf, distances, beta)[0, k]
        assert abs(float(bound) - expected) < 1e-4 * max(1, expected)
        energy += float(laplace_density(sdf[0, k], beta)) * float(deltas[0, k])


@pytest.mark.parametrize("stratified", [True, False])
def test_positions_are_ordered_and_near_the_surface(stratified):
    origins, directions = rays()
    settings = ErrorBoundedSampling(samples_per_round=32, final_samples=24, extra_samples=8)
    near, far = torch.zeros(64), torch.full((64,), 4.0)
    t = sample_error_bounded(settings, near, far, ball_on_rays(origins, directions), 0.01, stratified)
    assert t.shape == (64, settings.num_positions)
    assert (t.diff(dim=-1) >= 0).all() and (t[:, 0] == 0).all() and (t[:, -1] == 4).all()
    hits = origins[:, 0].abs() < 0.45
    first = 2 - torch.sqrt(RADIUS**2 - origins[hits, 0] ** 2)
    close = (t[hits] - first[:, None]).abs() < 0.1
    assert close.sum(-1).float().mean() > 16, "most of the weighted samples are at the front surface"
    assert (close.sum(-1) >= 5).all()


def test_depth_is_right_where_the_even_grid_is_wrong():
    origins, directions = rays()
    settings = ErrorBoundedSampling(samples_per_round=32, final_samples=32, extra_samples=8)
    near, far, beta = torch.zeros(64), torch.full((64,), 4.0), 0.005
    sdf = ball_on_rays(origins, directions)
    hits = origins[:, 0].abs() < 0.45
    truth = 2 - torch.sqrt(RADIUS**2 - origins[hits, 0] ** 2)

    def error(t):
        weights, _ = render_weights(laplace_density(sdf(torch.arange(64), t[:, :-1]), beta), t.diff(dim=-1))
        depth = (weights * t[:, :-1]).sum(-1) / weights.sum(-1).clamp(min=1e-3)
        return (depth[hits] - truth).abs().mean()

    bounded = error(sample_error_bounded(settings, near, far, sdf, beta, stratified=False))
    even = error(torch.linspace(0, 4, settings.num_positions).expand(64, -1))
    assert bounded < 0.3 * even


def test_finished_rays_are_not_looked_at_again():
    origins, directions = rays()
    looked_at = []
    settings = ErrorBoundedSampling(samples_per_round=32, final_samples=8, extra_samples=4)
    sdf = ball_on_rays(origins, directions, looked_at)
    sample_error_bounded(settings, torch.zeros(64), torch.full((64,), 4.0), sdf, 0.02, stratified=False)
    counts = [len(indices) for indices, _ in looked_at]
    assert counts[0] == 64 and counts[-1] < 64 and sorted(counts, reverse=True) == counts
    assert all(t.shape[1] == 32 for _, t in looked_at), "only new points are evaluated"


def test_rays_without_length_do_no_harm():
    settings = ErrorBoundedSampling(samples_per_round=8, final_samples=4, extra_samples=2)
    near = far = torch.full((3,), 1.5)
    t = sample_error_bounded(settings, near, far, lambda rays, t: torch.ones_like(t), 0.1, stratified=True)
    assert torch.isfinite(t).all() and (t == 1.5).all()


def test_inverse_cdf_follows_the_weights():
    t = torch.tensor([[0.0, 1.0, 3.0, 4.0]])
    weights = torch.tensor([[1.0, 2.0, 1.0]])
    u = torch.tensor([[0.0, 0.125, 0.25, 0.5, 0.75, 1.0]])
    assert torch.allclose(inverse_cdf(t, weights, u), torch.tensor([[0.0, 0.5, 1.0, 2.0, 3.0, 4.0]]), atol=1e-5)


def test_samples_stand_for_the_ray_about_them():
    lengths = sample_lengths(torch.tensor([[1.5, 2.0, 4.0]]), torch.tensor([1.0]), torch.tensor([4.25]))
    torch.testing.assert_close(lengths, torch.tensor([[0.75, 1.25, 1.25]]))


def test_shares_are_even_or_one_in_each_cell():
    even = even_shares(3, 5, False, torch.device("cpu"))
    assert torch.equal(even, torch.tensor([0, 0.25, 0.5, 0.75, 1]).expand(3, -1))
    drawn = even_shares(2000, 5, True, torch.device("cpu"))
    edges = torch.tensor([0, 0.125, 0.375, 0.625, 0.875, 1])
    assert (drawn >= edges[:-1]).all() and (drawn <= edges[1:]).all()
    assert torch.allclose(drawn.mean(0), (edges[:-1] + edges[1:]) / 2, atol=0.01), "anywhere in its cell"
