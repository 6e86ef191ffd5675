import torch

from nerfstudio_ext.surface.sphere import beyond, inverted_sphere_points, sphere_span


def some_rays(count=40, inside=True):
    directions = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    origins = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1) * (2.5 if inside else 5.0)
    return origins, directions


def test_rays_from_inside_leave_the_sphere():
    origins, directions = some_rays()
    near, far = sphere_span(origins, directions, 3.0)
    assert (near == 0).all()
    assert torch.allclose((origins + far[:, None] * directions).norm(dim=-1), torch.tensor(3.0), atol=1e-4)


def test_rays_from_outside_enter_it_or_miss():
    origins, directions = some_rays(inside=False)
    directions[:20] = -torch.nn.functional.normalize(origins[:20] + 0.3 * torch.randn(20, 3), dim=-1)
    near, far = sphere_span(origins, directions, 3.0)
    assert (near[:20] > 1.5).all() and (far[:20] > near[:20]).all()
    assert torch.allclose((origins[:20] + near[:20, None] * directions[:20]).norm(dim=-1), torch.tensor(3.0), atol=1e-4)
    missed = far == near
    assert missed.any() and torch.isfinite(near).all()


def test_background_points_lie_on_their_rays():
    origins, directions = some_rays()
    inverse = torch.linspace(1 / 3, 0.02, 7).expand(40, -1)
    points = inverted_sphere_points(origins, directions, inverse)
    assert torch.allclose(points[..., :3].norm(dim=-1), torch.ones(40, 7), atol=1e-5)
    world = points[..., :3] / points[..., 3:]
    along = ((world - origins[:, None]) * directions[:, None]).sum(-1)
    off = (world - origins[:, None] - along[..., None] * directions[:, None]).norm(dim=-1)
    assert (off / world.norm(dim=-1)).max() < 1e-3
    assert (along.diff(dim=-1) > 0).all()


def test_points_at_infinity_have_the_rays_direction():
    origins, directions = some_rays()
    points = inverted_sphere_points(origins, directions, torch.zeros(40, 1))
    assert torch.allclose(points[:, 0, :3], directions, atol=1e-3)


def test_ray_through_the_origin():
    origins = torch.tensor([[0.0, 0.0, -2.0]])
    directions = torch.tensor([[0.0, 0.0, 1.0]])
    points = inverted_sphere_points(origins, directions, torch.tensor([[0.3, 0.0]]))
    assert torch.allclose(points[0, :, :3], directions.expand(2, 3), atol=1e-6)


def test_the_background_begins_behind_the_object_and_before_no_camera():
    origins, directions = some_rays(200)
    start = beyond(origins, directions, 1.2)
    points = inverted_sphere_points(origins, directions, 1 / start)
    world = points[:, 0, :3] / points[:, 0, 3:]
    along = ((world - origins) * directions).sum(-1)
    assert (along > -1e-3).all() and (start >= 1.2).all()
    hits = sphere_span(origins, directions, 1.2)[1] > sphere_span(origins, directions, 1.2)[0]
    assert hits.any() and torch.allclose(start[hits], torch.tensor(1.2), atol=1e-5)
    assert torch.allclose(along[hits], sphere_span(origins, directions, 1.2)[1][hits], atol=1e-3)
    away = (origins * directions).sum(-1) > 0
    assert torch.allclose(start[away], origins[away].norm(dim=-1, keepdim=True), atol=1e-5)
