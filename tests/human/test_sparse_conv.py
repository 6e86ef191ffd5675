import pytest
import torch
import torch.nn.functional as F

from nerfstudio_ext.human.sparse_conv import (
    SparseConv,
    SparseTower,
    build_tables,
    dilate,
    flagged,
    sample,
    scatter_mean,
)

SHAPE = (9, 14, 11)


@pytest.fixture
def points():
    return torch.stack([torch.randint(0, n, (60,)) for n in SHAPE], dim=-1)


def densify(features, grid):
    """Without the rim."""
    grid = grid[1:-1, 1:-1, 1:-1]
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    return padded[grid.long()].permute(3, 0, 1, 2)[None]


def kernel(layer, inputs):
    """The weight as torch's dense convolution has it."""
    return layer.weight.view(3, 3, 3, inputs, -1).permute(4, 3, 0, 1, 2)


def test_convolutions_equal_masked_dense_ones(points):
    """Values, gradients and active sites of both kinds of layer, at every level, in double precision (card C10)."""
    tables = build_tables(points, SHAPE)
    for level in range(5):
        grid, count = tables.rows[level], tables.counts[level]
        features = torch.randn(count, 3, dtype=torch.float64, requires_grad=True)
        layer = SparseConv(3, 5, "layer").double()
        dense = densify(features, grid)
        mask = (grid != count)[1:-1, 1:-1, 1:-1][None, None].double()
        theirs = F.conv3d(dense, kernel(layer, 3), padding=1) * mask
        target = torch.randn_like(theirs)
        wanted = torch.autograd.grad((theirs * target).sum(), [features, layer.weight], retain_graph=True)
        for same in (False, True):
            ours = densify(layer.convolve(features, tables.same[level], same), grid)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
            mine = torch.autograd.grad((ours * target).sum(), [features, layer.weight])
            torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-10)
        if level == 4:
            break
        theirs = F.conv3d(dense, kernel(layer, 3), stride=2, padding=1)
        active = F.max_pool3d(mask, 3, 2, 1) > 0
        coarse = tables.rows[level + 1]
        assert torch.equal((coarse != tables.counts[level + 1])[1:-1, 1:-1, 1:-1][None, None], active)
        ours = densify(layer.convolve(features, tables.down[level]), coarse)
        torch.testing.assert_close(ours, theirs * active, rtol=0, atol=1e-10)
        target = torch.randn_like(ours)
        (mine,) = torch.autograd.grad((ours * target).sum(), features, retain_graph=True)
        (wanted,) = torch.autograd.grad((theirs * active * target).sum(), features)
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-10)


def test_points_in_one_voxel_share_its_mean():
    points = torch.tensor([[1, 2, 3], [4, 4, 4], [1, 2, 3]])
    tables = build_tables(points, SHAPE)
    values = torch.tensor([[1.0], [5.0], [3.0]])
    means = scatter_mean(values, tables.site_of_point, tables.counts[0])
    assert tables.counts[0] == 2
    assert float(means[tables.rows[0][2, 3, 4]]) == 2.0
    assert float(means[tables.rows[0][5, 5, 5]]) == 5.0


def test_sampling_equals_grid_sample(points):
    tables = build_tables(points, SHAPE)
    grid = tables.rows[1]
    features = torch.randn(tables.counts[1], 4, dtype=torch.float64)
    size = torch.tensor(grid.shape, dtype=torch.float64) - 2
    position = torch.rand(200, 3, dtype=torch.float64) * (size + 3) - 2
    normalised = 2 * position / (size - 1) - 1
    wanted = F.grid_sample(densify(features, grid), normalised.flip(-1)[None, None, None], align_corners=True)
    torch.testing.assert_close(sample(features, grid, position), wanted[0, :, 0, 0].T)


def test_dilation_reaches_exactly_its_radius():
    tables = build_tables(torch.tensor([[4, 6, 5]]), SHAPE)
    wide = dilate(tables.rows[0], tables.counts[0], 2)
    assert int(wide.sum()) == 125 and bool(wide[3, 5, 4]) and not bool(wide[2, 7, 6])
    places = torch.tensor([[2.4, 4.0, 3.0], [1.4, 4.0, 3.0], [-50.0, 4.0, 3.0], [4.0, 60.0, 5.0]])
    assert flagged(wide, places).tolist() == [True, False, False, False]


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_tower_gives_four_levels_and_reaches_every_weight(points, norm):
    tables = build_tables(3 * points, (32, 48, 40))
    tower = SparseTower(4, (6, 8, 8, 8), norm)
    codes = torch.randn(len(points), 4, requires_grad=True)
    volumes = tower(codes, tables)
    assert [tuple(v.shape) for v in volumes] == [(n, c) for n, c in zip(tables.counts[1:], (6, 8, 8, 8))]
    sum((v * torch.randn_like(v)).sum() for v in volumes).backward()
    assert codes.grad is not None and all(p.grad is not None for p in tower.parameters())


def test_a_translated_body_has_translated_features(points):
    """By a multiple of the coarsest voxel, so that rounding is the same."""
    wide = tuple(n + 48 for n in SHAPE)
    tower = SparseTower(3, (4, 4, 4, 4), "layer")
    codes = torch.randn(len(points), 3)
    here, there = (build_tables(points + shift, wide) for shift in (16, 32))
    for one, other in zip(tower(codes, here), tower(codes, there)):
        torch.testing.assert_close(one, other)
