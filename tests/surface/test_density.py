import torch

from nerfstudio_ext.surface.density import LaplaceDensity, laplace_density, render_weights


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


def test_weights_and_what_is_behind_sum_to_one():
    density, deltas = torch.rand(50, 20) * 30, torch.rand(50, 20)
    weights, behind = render_weights(density, deltas)
    assert torch.allclose(weights.sum(-1) + behind, torch.ones(50), atol=1e-5)
    transmittance = torch.ones(50)
    for k in range(20):
        alpha = 1 - torch.exp(-density[:, k] * deltas[:, k])
        assert torch.allclose(weights[:, k], alpha * transmittance, atol=1e-5)
        transmittance = transmittance * (1 - alpha)
