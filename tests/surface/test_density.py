import pytest
import torch

from nerfstudio_ext.surface.density import (
    LaplaceDensity,
    alpha_weights,
    laplace_density,
    logistic_alpha,
    render_weights,
)


def test_density_is_the_laplace_distribution():
    s, beta = torch.linspace(-1, 1, 201, dtype=torch.float64), 0.13
    expected = torch.where(s >= 0, 0.5 * torch.exp(-s / beta), 1 - 0.5 * torch.exp(s / beta)) / beta
    assert torch.allclose(laplace_density(s, beta), expected)
    assert torch.allclose(laplace_density(torch.zeros(1), beta), torch.tensor(0.5 / beta))
    assert (laplace_density(s, beta).diff() <= 0).all(), "denser further inside"


def test_scale_is_learned_and_bounded():
    density = LaplaceDensity(0.1, 1e-4)
    assert abs(float(density.beta) - 0.1001) < 1e-6
    density(torch.tensor([0.05])).sum().backward()
    assert density.raw.grad != 0
    with torch.no_grad():
        density.raw.zero_()
    assert density.beta == 1e-4


def test_scale_follows_a_schedule_where_it_is_not_learned():
    density = LaplaceDensity(0.0999, 1e-4, final=0.004)
    assert not density.raw.requires_grad
    found = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        density.anneal(progress)
        found.append(float(density.beta))
    assert found == pytest.approx([0.1, 0.1 / (1 + 24 * 0.25**0.8), 0.1 / (1 + 24 * 0.5**0.8), 0.004], rel=1e-4)
    learned = LaplaceDensity(0.1, 1e-4)
    learned.anneal(1.0)
    assert float(learned.raw.detach()) == pytest.approx(0.1)


def test_weights_and_what_is_behind_sum_to_one():
    density, deltas = torch.rand(50, 20) * 30, torch.rand(50, 20)
    weights, behind = render_weights(density, deltas)
    assert torch.allclose(weights.sum(-1) + behind, torch.ones(50), atol=1e-5)
    transmittance = torch.ones(50)
    for k in range(20):
        alpha = 1 - torch.exp(-density[:, k] * deltas[:, k])
        assert torch.allclose(weights[:, k], alpha * transmittance, atol=1e-5)
        transmittance = transmittance * (1 - alpha)


def test_a_huge_last_interval_stays_behind_the_others():
    """Differences of sums would round away what is in front of it."""
    density = torch.rand(500, 8) * 50
    deltas = torch.cat([torch.rand(500, 7), torch.full((500, 1), 1e10)], dim=-1)
    weights, behind = render_weights(density, deltas)
    assert torch.allclose(weights.sum(-1) + behind, torch.ones(500), atol=1e-5)
    opaque = torch.tensor([[100.0, 1.0, 5.0]]), torch.tensor([[1.0, 1.0, 1e10]])
    assert render_weights(*opaque)[0][0, 1:].max() < 1e-30


def test_logistic_alpha_against_a_loop():
    sdf, scale = torch.randn(4, 7) * 0.3, 0.1
    alpha = logistic_alpha(sdf, scale)
    for ray in range(4):
        for k in range(6):
            here, there = (1 / (1 + torch.exp(-sdf[ray, j] / scale)) for j in (k, k + 1))
            assert torch.allclose(alpha[ray, k], ((here - there) / here).clamp(min=0), atol=1e-5)
    assert (alpha[:, -1] == 0).all()
    weights, behind = alpha_weights(alpha)
    assert torch.allclose(weights.sum(-1) + behind, torch.ones(4), atol=1e-6)
    assert torch.isfinite(logistic_alpha(torch.tensor([[50.0, -50.0, 3.0]]), 1e-3)).all()


def test_logistic_weights_peak_on_the_surface():
    """NeuS's point: the weight is largest where the distance is zero, also on a wall seen at a grazing angle."""
    t = torch.linspace(0, 2, 401)
    sdf = (1.0 - t)[None] * 0.2
    weights, behind = alpha_weights(logistic_alpha(sdf, 0.01))
    assert abs(float(t[weights[0].argmax()]) - 1.0) < 0.02 and behind < 1e-3
