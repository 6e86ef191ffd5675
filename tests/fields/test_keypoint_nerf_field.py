from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from nerfstudio_ext.fields.keypoint_nerf_field import KeypointNeRFField, KeypointNeRFFieldConfig
from nerfstudio_ext.human.keypoint_encoding import EncodingMode
from nerfstudio_ext.human.view_sampling import sample_maps
from tests.human.toy_person import chosen, moved, toy_views

SMALL = dict(
    input_pool=1, stem=8, hourglass_width=16, hourglass_depth=2, coarse_width=8, fine_width=4, texture_width=4,
    texture_blocks=1, texture_channels=4, width=32, latent_width=16, blend_width=8, density_gain=20.0,
)  # fmt: skip


def make_field(**changes) -> KeypointNeRFField:
    torch.manual_seed(0)
    field = KeypointNeRFField(KeypointNeRFFieldConfig(**{**SMALL, **changes}), num_keypoints=6).eval()
    torch.nn.init.constant_(field.density_head.bias, 1.0)  # so that there is something nearly everywhere
    torch.nn.init.normal_(field.density_head.weight, std=1.0)
    return field


def queries(count: int = 60):
    torch.manual_seed(1)
    points = 0.3 * torch.randn(count, 3)
    return points, torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)


@torch.no_grad()
def ask(field, views, points, directions):
    encoded = field.encode(views)
    return field(points, directions, field.see(points, encoded), encoded)


def test_size_of_the_released_heads():
    """Counted on the official definitions (method card, section 2): geometry, colours, compression."""
    field = KeypointNeRFField(KeypointNeRFFieldConfig(), num_keypoints=24)

    def numbers(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    unused = 64 + 1  # the released density head has a second output that nothing reads
    geometry = numbers(field.first, field.second, field.latent, field.fused, field.density_head)
    assert geometry + unused == 83_570
    assert numbers(field.blending) == 13_527
    assert numbers(field.compress) == 3_096


@pytest.mark.parametrize("mode", get_args(EncodingMode))
def test_rigid_motion_of_the_world_changes_nothing(mode):
    """Claim 1: density and colour are the same where people, cameras and rays move together."""
    field, views, (points, directions) = make_field(encoding=mode), toy_views(), queries()
    after, rotation, shift = moved(views)
    density, colour, share = ask(field, views, points, directions)
    turned = ask(field, after, points @ rotation.T + shift, directions @ rotation.T)
    assert float(density.std()) > 0.5 and float(share.std()) > 1e-3
    if "world" in mode:
        assert float((density - turned[0]).abs().max()) > 0.1
    else:
        torch.testing.assert_close(density, turned[0], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(colour, turned[1], atol=1e-4, rtol=0)


def test_world_directions_break_it_for_colours_alone():
    field, views, (points, directions) = make_field(direction_frame="world"), toy_views(), queries()
    after, rotation, shift = moved(views)
    one, other = ask(field, views, points, directions), ask(field, after, points @ rotation.T + shift,
                                                            directions @ rotation.T)  # fmt: skip
    torch.testing.assert_close(one[0], other[0], atol=1e-3, rtol=1e-4)
    assert float((one[2] - other[2]).abs().max()) > 1e-3


@pytest.mark.parametrize("count", [2, 3, 4])
def test_order_of_the_views_does_not_matter(count):
    """Claim 2, first half."""
    field, views, (points, directions) = make_field(), toy_views(count), queries()
    order = torch.randperm(count).tolist()
    one, other = ask(field, views, points, directions), ask(field, chosen(views, order), points, directions)
    torch.testing.assert_close(one[0], other[0], atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(one[1], other[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(one[2][order], other[2], atol=1e-5, rtol=0)


def test_colours_are_mixtures_of_what_the_views_show():
    field, views, (points, directions) = make_field(), toy_views(), queries()
    _, colour, share = ask(field, views, points, directions)
    torch.testing.assert_close(share.sum(0), torch.ones(len(points)))
    encoded = field.encode(views)
    seen = field.see(points, encoded)
    shown = sample_maps(views.rgb, seen.pixels, 32, 32)
    assert bool((colour <= shown.amax(0) + 1e-5).all()) and bool((colour >= shown.amin(0) - 1e-5).all())


def test_nothing_is_outside_the_hull_and_no_colour_comes_from_beside_a_mask():
    field, views = make_field(mask_dilation=0.0), toy_views()
    points, directions = queries()
    far = points + torch.tensor([0.0, 0.0, 3.0])
    assert not bool(ask(field, views, far, directions)[0].any())
    views.mask[0] = 0
    views.rgb[0] = 0
    field = make_field(hull="majority")
    density, _, share = ask(field, views, points, directions)
    there = density > 0
    assert int(there.sum()) > 20 and float(share[0, there].max()) < 1e-6


def test_in_the_rim_of_grown_masks_colours_come_from_views_whose_own_mask_holds_the_point():
    """With the default growth, on pictures that are large enough for it to be a pixel. Where no view's own mask holds a
    point, which is rare, the colours are what the pictures have there: dark."""
    field, views = make_field(), toy_views(size=128)
    assert field.config.mask_dilation == KeypointNeRFFieldConfig().mask_dilation
    views.mask[:, :, :9] = views.mask[:, :, -9:] = 0
    views.rgb.mul_(views.mask)
    points = 2.4 * torch.rand(20000, 3) - 1.2
    encoded = field.encode(views)
    seen = field.see(points, encoded)
    seen, points = seen.at(seen.valid.any(0)), points[seen.valid.any(0)]
    sharp = sample_maps(views.mask, seen.pixels, 128, 128)[..., 0] > 0.5
    _, _, share = field(points, F.normalize(torch.randn(len(points), 3), dim=-1), seen, encoded)
    rim, held = seen.valid & ~sharp, (seen.valid & sharp).any(0)
    assert int((rim & held).sum()) > 50, "some points lie in the rim"
    assert float(share[rim & held].max()) < 1e-6
    assert int((~held).sum()) < 0.01 * len(points)
    torch.testing.assert_close(share.sum(0), torch.ones(len(points)))


def test_fusion_is_a_weighted_mean_and_variance():
    """A slow twin: the latents of each view alone, then moments by hand."""
    field, views, (points, _) = make_field(), toy_views(), queries(10)
    encoded = field.encode(views)
    seen = field.see(points, encoded)
    fused = field.fuse(points, seen, encoded)
    latents = []
    for view in range(3):
        alone = field.encode(chosen(views, [view]))
        latents.append(field.fuse(points, field.see(points, alone), alone)[:, :16])
    for k in range(10):
        shares = [float(seen.weight[v, k]) for v in range(3)]
        total = sum(shares) + 1e-6
        if min(shares) < 0.01:
            continue  # of a view alone the tiny constant in the weights would show
        mean = sum(s / total * latents[v][k] for v, s in enumerate(shares))
        variance = sum(s / total * (latents[v][k] - mean) ** 2 for v, s in enumerate(shares))
        torch.testing.assert_close(fused[k], torch.cat([mean, variance]), atol=1e-3, rtol=1e-2)


def test_every_number_gets_a_gradient_and_none_is_nan():
    field, views, (points, directions) = make_field().train(), toy_views(), queries()
    encoded = field.encode(views)
    density, colour, _ = field(points, directions, field.see(points, encoded), encoded, noise=0.01)
    (density.mean() + colour.square().mean()).backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name


def test_no_points_are_no_error():
    field, views = make_field(), toy_views()
    density, colour, share = ask(field, views, torch.zeros(0, 3), torch.zeros(0, 3))
    assert density.shape == (0,) and colour.shape == (0, 3) and share.shape == (3, 0)
