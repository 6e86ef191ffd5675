import pytest
import torch

from nerfstudio_ext.surface.losses import curvature_loss, eikonal_loss


def test_distances_cost_nothing():
    unit = torch.nn.functional.normalize(torch.randn(20, 3), dim=-1)
    assert float(eikonal_loss(unit)) < 1e-10
    assert float(eikonal_loss(2 * unit)) == pytest.approx(1.0)


def test_curvature_is_the_turn_of_the_normal():
    a = torch.tensor([[0.0, 0, 2], [1, 0, 0]])
    b = torch.tensor([[0.0, 5, 0], [3, 0, 0]])
    assert float(curvature_loss(a, b)) == pytest.approx(2**0.5 / 2)
    assert float(curvature_loss(a, 7 * a)) == 0
