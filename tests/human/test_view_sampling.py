import math

import pytest
import torch

from nerfstudio_ext.human.subject import SourceViews
from nerfstudio_ext.human.view_sampling import depth_range, dilated, sample_maps, see
from tests.human.toy_person import chosen, moved, toy_subject, toy_views


def test_projection_is_nerfstudios_own():
    """Points on the host's rays come back to the pixels the rays went through."""
    from nerfstudio.cameras.cameras import Cameras, CameraType

    subject = toy_subject()
    cameras = Cameras(subject.poses, *subject.intrinsics[0].tolist(), 32, 32, camera_type=CameraType.PERSPECTIVE)
    views = SourceViews.of(subject, range(3), torch.device("cpu"))
    for camera in range(3):
        rays = cameras.generate_rays(camera_indices=camera)
        points = (rays.origins + 2.0 * rays.directions).reshape(-1, 3)
        pixels, depth = views.project(points)
        rows, columns = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
        torch.testing.assert_close(pixels[camera], torch.stack([columns, rows], -1).reshape(-1, 2), atol=1e-3, rtol=0)
        assert bool((depth[camera] > 0).all())


def test_maps_of_any_resolution_are_read_at_their_pixel_centres():
    picture = torch.rand(1, 2, 8, 8)
    pixels = torch.tensor([[[0.5, 0.5], [3.5, 6.5], [4.0, 4.0]]])
    read = sample_maps(picture, pixels, 8, 8)[0]
    torch.testing.assert_close(read[0], picture[0, :, 0, 0])
    torch.testing.assert_close(read[1], picture[0, :, 6, 3])
    torch.testing.assert_close(read[2], picture[0, :, 3:5, 3:5].mean((1, 2)))
    half = torch.nn.functional.avg_pool2d(picture, 2)
    torch.testing.assert_close(sample_maps(half, torch.tensor([[[3.0, 5.0]]]), 8, 8)[0, 0], half[0, :, 2, 1])


def test_weights_fade_at_borders_as_the_paper_says():
    views = toy_views()
    torch.manual_seed(0)
    points = torch.randn(200, 3) * 0.6
    seen = see(points, views, torch.ones_like(views.mask), "off")
    pixels, depth = views.project(points)
    near, far = depth_range(views)
    some = 0
    for view in range(3):
        for k in range(200):
            x, y = (float(v) / 32 for v in pixels[view, k])
            z = float((depth[view, k] - near[view]) / (far[view] - near[view]))
            expected = math.prod(1 / (1 + math.exp(-5 * (min(c, 1 - c) / 0.1 - 1))) for c in (x, y, z))
            inside = -0.01 < x < 1.01 and -0.01 < y < 1.01 and float(depth[view, k]) >= float(near[view])
            assert bool(seen.valid[view, k]) == inside
            assert float(seen.weight[view, k]) == pytest.approx(expected * inside, abs=1e-4)
            some += inside
    assert 50 < some < 600


def test_hull_modes_differ_in_how_many_masks_they_ask():
    views = toy_views()
    masks = views.mask.clone()
    masks[0] = 0
    point = torch.zeros(1, 3)
    found = {mode: bool(see(point, views, masks, mode).valid.any()) for mode in ("all", "majority", "any", "off")}
    assert found == {"all": False, "majority": True, "any": True, "off": True}
    masks[1] = 0
    found = {mode: bool(see(point, views, masks, mode).valid.any()) for mode in ("all", "majority", "any", "off")}
    assert found == {"all": False, "majority": False, "any": True, "off": True}


def test_a_truncated_view_carves_only_where_all_are_asked():
    views = toy_views()
    outside = torch.tensor([[0.0, 0.0, 1.3]])
    assert not bool(see(outside, views, torch.ones_like(views.mask), "all").valid.any())


def test_depths_do_not_depend_on_the_world():
    views = toy_views()
    for before, after in zip(depth_range(views), depth_range(moved(views)[0])):
        torch.testing.assert_close(before, after, atol=1e-4, rtol=0)


def test_dilation_and_order():
    mask = torch.zeros(1, 1, 100, 100)
    mask[..., 50, 50] = 1
    assert int(dilated(mask, 0.01).sum()) == 9 and int(dilated(mask, 0.0).sum()) == 1
    views = toy_views()
    points = torch.randn(20, 3) * 0.3
    order = [2, 0, 1]
    one, other = see(points, views, views.mask, "all"), see(points, chosen(views, order), views.mask[order], "all")
    assert torch.equal(one.valid[order], other.valid)
    assert torch.equal(one.at(one.valid[0]).pixels, one.pixels[:, one.valid[0]])
