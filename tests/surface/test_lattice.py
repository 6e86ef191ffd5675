"""A lattice that is refined where the surface is, against the dense one."""

import torch

from nerfstudio_ext.surface.lattice import refined_lattice

BOX = torch.tensor([[-1.0, -1.2, -0.9], [1.1, 1.0, 1.0]])


def ball(points: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(20 * (0.6 - points.norm(dim=-1)))


def test_near_the_surface_the_lattice_is_the_dense_one():
    volume, count = refined_lattice(ball, BOX, 17, 2, 0.5)
    dense, whole = refined_lattice(ball, BOX, 65, 0, 0.5)
    assert volume.shape == dense.shape == (65, 65, 65) and whole == 65**3
    assert torch.equal(volume > 0.5, dense > 0.5)
    near = (dense - 0.5).abs() < 0.3
    # Cells whose corners agree are interpolated, right up to those that are not.
    torch.testing.assert_close(volume[near], dense[near], atol=0.01, rtol=0)
    assert count < 65**3 / 3


def test_corners_of_the_box_are_points_of_the_lattice():
    seen = []
    refined_lattice(lambda points: seen.append(points) or ball(points), BOX, 5, 1, 0.5)
    points = torch.cat(seen)
    torch.testing.assert_close(torch.stack([points.amin(0), points.amax(0)]), BOX)


def test_an_empty_field_costs_the_coarse_lattice_alone():
    volume, count = refined_lattice(lambda points: 0 * points[:, 0], BOX, 9, 2, 0.5)
    assert count == 9**3 and not volume.any()
