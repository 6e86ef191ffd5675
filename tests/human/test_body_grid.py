from dataclasses import replace

import torch

from nerfstudio_ext.human.body_grid import BodyFrames, box_span
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.skinning import rotation_matrix


def motion(frames=2):
    torch.manual_seed(0)
    local = torch.rand(1, 200, 3) * torch.tensor([0.5, 0.3, 1.6])
    turn, shift = torch.randn(frames, 3) * 0.4, torch.randn(frames, 3)
    vertices = local @ rotation_matrix(turn).transpose(1, 2) + shift[:, None]
    return BodyMotion(vertices, torch.tensor([[0, 1, 2]]), turn, shift)


def test_a_rigid_move_leaves_the_grid_as_it_is():
    one, other = BodyFrames(motion(), 0.05, 0.05, 2)
    assert one.tables.counts == other.tables.counts
    assert torch.equal(one.tables.site_of_point, other.tables.site_of_point)
    torch.testing.assert_close(one.voxels(motion().vertices[0]), other.voxels(motion().vertices[1]), rtol=0, atol=1e-4)


def test_vertices_round_to_their_own_site_and_are_decoded():
    frame = BodyFrames(motion(), 0.05, 0.05, 1)[0]
    vertices = motion().vertices[0]
    coords = frame.voxels(vertices).round().long()
    same_voxel = (coords[:, None] == coords[None]).all(-1)
    sites = frame.tables.site_of_point
    assert torch.equal(same_voxel, sites[:, None] == sites[None])
    assert bool(frame.is_near(vertices).all())
    assert not bool(frame.is_near(vertices + 3).any())
    assert all(n % 16 == 2 for n in frame.tables.rows[1].shape)


def test_wider_reach_keeps_more():
    points = torch.rand(4000, 3) * 3 - 1.5
    close, far = (BodyFrames(motion(), 0.05, 0.05, reach)[0].is_near(points) for reach in (1, 4))
    assert int(close.sum()) < int(far.sum()) and not bool((close & ~far).any())


def test_box_span_against_points_on_the_ray():
    box = torch.tensor([[-1.0, -0.5, 0.0], [1.0, 0.5, 2.0]])
    origins, directions = torch.randn(300, 3) * 3, torch.nn.functional.normalize(torch.randn(300, 3), dim=-1)
    near, far = box_span(origins, directions, box)
    t = torch.linspace(0, 12, 4001)
    points = origins[:, None] + t[:, None] * directions[:, None]
    inside = ((points > box[0]) & (points < box[1])).all(-1)
    assert bool((inside.any(1) <= (far > near)).all())
    wanted = (t > near[:, None]) & (t < far[:, None])
    assert float((wanted != inside).float().mean()) < 1e-3
    assert int((far > near).sum()) > 5


def test_padding_widens_the_box():
    frame = BodyFrames(replace(motion()), 0.05, 0.1, 1)[0]
    torch.testing.assert_close(frame.box[0], motion().vertices[0].amin(0) - 0.1)


def test_frames_are_built_when_asked_for_and_the_last_ones_kept():
    frames = BodyFrames(motion(3), 0.05, 0.05, 1, limit=2)
    first = frames[0]
    assert frames[0] is first and len(frames) == 3
    assert frames[1] is not None and frames[2] is not None
    again = frames[0]
    assert again is not first and torch.equal(again.box, first.box)
