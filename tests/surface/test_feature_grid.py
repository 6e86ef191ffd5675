"""Feature grids: what they hold between their points, and that the kernels do what plain torch does."""

import pytest
import torch
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.surface import feature_grid
from nerfstudio_ext.surface.feature_grid import FEATURES, FeatureGrid, interpolate


def _filled(sizes=(3, 5), radius=1.5) -> FeatureGrid:
    torch.manual_seed(0)
    grid = FeatureGrid(sizes, radius)
    torch.nn.init.normal_(grid.table)
    return grid


def test_a_linear_function_is_held_exactly_in_every_grid():
    grid = FeatureGrid((3, 6), 2.0)
    direction = torch.randn(3, FEATURES)
    places = [torch.cartesian_prod(*[torch.linspace(-2, 2, size)] * 3) for size in (3, 6)]
    grid.table.data = torch.cat(places) @ direction
    x = torch.rand(50, 3) * 4 - 2
    torch.testing.assert_close(grid(x), (x @ direction).repeat(1, 2), atol=1e-5, rtol=1e-5)


def test_outside_the_cube_its_boundary_goes_on():
    grid = _filled()
    far, edge = torch.tensor([[9.0, 0.2, -7.0]]), torch.tensor([[1.5, 0.2, -1.5]])
    torch.testing.assert_close(grid(far), grid(edge))


def test_grids_start_with_next_to_nothing():
    assert float(FeatureGrid((4,), 1.0)(torch.rand(9, 3)).abs().max()) < 2e-4


def test_grids_without_cells_are_refused():
    with pytest.raises(InputError, match="grid-sizes 1 4 must each be 2 at least"):
        FeatureGrid((1, 4), 1.0)
    for radius in (0.0, float("nan")):
        with pytest.raises(InputError, match=r"grid-radius .* must be above 0"):
            FeatureGrid((4,), radius)


def test_second_derivatives_are_right():
    torch.manual_seed(0)
    table = torch.randn(27, FEATURES, dtype=torch.float64, requires_grad=True)
    x = (torch.rand(4, 3, dtype=torch.float64) * 1.6 - 0.8).requires_grad_(True)
    sizes, starts = torch.tensor([3], dtype=torch.int32), torch.tensor([0], dtype=torch.int32)
    assert torch.autograd.gradgradcheck(lambda a, b: interpolate(a, b, sizes, starts), (x, table))


def _eikonal(run, grid: FeatureGrid, points: Tensor):
    """Features, and gradients of a loss of features and of their slopes, by points and table."""
    x = points.clone().requires_grad_(True)
    grid.table.grad = None
    features = run(x, grid.table, grid.sizes, grid.starts)
    (slope,) = torch.autograd.grad(features.square().sum(), x, create_graph=True)
    ((slope.norm(dim=-1) - 1).square().sum() + features.sum()).backward()
    return features.detach(), slope.detach(), x.grad, grid.table.grad


def _assert_kernels_agree(device: str) -> None:
    pytest.importorskip("warp", reason="warp-lang is optional")
    from nerfstudio_ext.surface import feature_grid_kernels as kernels

    grid = _filled((3, 8, 13)).to(device)
    # Beyond the cube on both sides as well, and on points of the grid.
    points = torch.cat([torch.rand(300, 3) * 2.6 - 1.3, torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 0.5]])]).to(device)
    for found, wanted in zip(_eikonal(kernels.interpolate, grid, points), _eikonal(interpolate, grid, points)):
        torch.testing.assert_close(found, wanted, atol=2e-4, rtol=2e-4)


def test_kernels_do_what_plain_torch_does():
    _assert_kernels_agree("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_kernels_do_what_plain_torch_does_on_cuda():
    _assert_kernels_agree("cuda")


@pytest.mark.parametrize("run", ["plain", "compiled"])
def test_what_is_no_number_stays_none(run):
    """An index made of it would be outside of the table, and a finite feature would hide it from who watches losses."""
    grid, points = _filled(), torch.tensor([[0.1, float("nan"), 0.2], [0.1, 0.3, 0.2]])
    found = interpolate if run == "plain" else feature_grid.fastest_interpolate("cpu")
    features = found(points, grid.table, grid.sizes, grid.starts)
    assert features[0].isnan().all() and features[1].isfinite().all()


def test_devices_that_warp_does_not_reach_take_plain_torch(capsys):
    assert feature_grid.fastest_interpolate.__wrapped__("mps") is interpolate
    assert "plain torch, which is slower" in capsys.readouterr().out


def test_double_precision_takes_the_plain_function(monkeypatch):
    def refused(*_):
        raise AssertionError("kernels are of single precision")

    monkeypatch.setattr(feature_grid, "fastest_interpolate", lambda _: refused)
    grid = _filled().double()
    assert grid(torch.rand(2, 3, dtype=torch.float64)).dtype == torch.float64
