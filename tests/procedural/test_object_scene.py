import math

import numpy as np
import pytest
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.object_scene import ObjectScene, ObjectSceneOptions, trace
from nerfstudio_ext.procedural.objects import OBJECTS, SdfObject
from nerfstudio_ext.procedural.rigs import rig_poses


def points_in_the_box(count: int = 4000) -> torch.Tensor:
    return torch.rand(count, 3) * 2.4 - 1.2


@pytest.mark.parametrize("name", OBJECTS)
def test_distances_may_be_trusted(name):
    """Sphere tracing must not step through a surface: the value times `step` never exceeds the way to any point."""
    target = OBJECTS[name]
    a, b = points_in_the_box(), points_in_the_box()
    b = a + (b - a) * 0.05
    assert ((target.sdf(a) - target.sdf(b)).abs() * target.step <= 1.02 * (a - b).norm(dim=-1) + 1e-6).all()


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_lie_inside_the_unit_sphere(name):
    outside = torch.nn.functional.normalize(torch.randn(4000, 3), dim=-1)
    assert (OBJECTS[name].sdf(outside) > 0).all()
    assert (OBJECTS[name].sdf(points_in_the_box()) < 0).any()


def test_ball_is_traced_exactly():
    ball = SdfObject(lambda p: p.norm(dim=-1) - 0.7, lambda p: p.abs())
    directions = torch.nn.functional.normalize(torch.tensor([[0.0, 0, -1], [0.2, 0.1, -1], [0.0, 2, -1]]), dim=-1)
    origins = torch.tensor([[0.0, 0, 2.5]]).expand(3, 3)
    depth, hit = trace(ball, origins, directions)
    assert hit.tolist() == [True, True, False] and depth[2] == 0
    b = (origins * directions).sum(-1)[:2]
    expected = -b - torch.sqrt(b**2 - 2.5**2 + 0.7**2)
    assert torch.allclose(depth[:2], expected, atol=3e-5)


@pytest.mark.parametrize("name", OBJECTS)
def test_views_agree_with_the_geometry(name):
    scene = ObjectScene(ObjectSceneOptions(name, num_views=4, size=24))
    for index in range(4):
        view = scene.view(index)
        assert 0.1 < view.mask.float().mean() < 0.6
        points = (scene.poses[index, :, 3] + view.depth[..., None] * scene.rays(index))[view.mask]
        assert scene.object.sdf(points).abs().max() < 3e-4
        assert (view.normals[view.mask].norm(dim=-1) - 1).abs().max() < 1e-5
        facing = (view.normals * scene.rays(index)).sum(-1)[view.mask]
        assert (facing < 0.05).all(), "a visible surface faces the camera"
        assert view.depth[~view.mask].max() == 0 and view.rgb.min() >= 0 and view.rgb.max() <= 1


def test_two_views_show_one_surface():
    """What one camera sees, another sees in the same colour, unless something stands before it."""
    scene = ObjectScene(ObjectSceneOptions("spheres", num_views=40, size=64))
    one, other = scene.view(0), scene.view(1)
    points = (scene.poses[0, :, 3] + one.depth[..., None] * scene.rays(0))[one.mask]
    pose = scene.poses[1]
    local = (points - pose[:, 3]) @ pose[:, :3]
    pixel = (local[:, :2] / -local[:, 2:]) * scene.focals[1] * torch.tensor([1.0, -1.0]) + 32
    column, row = (pixel - 0.5).round().long().clamp(0, 63).unbind(-1)
    visible = (other.depth[row, column] - local.norm(dim=-1)).abs() < 0.02
    assert visible.float().mean() > 0.5
    assert (one.rgb[one.mask][visible] - other.rgb[row, column][visible]).abs().mean() < 0.02


def test_drawing_is_deterministic():
    options = ObjectSceneOptions("head", num_views=3, size=16, seed=4)
    assert torch.equal(ObjectScene(options)._draw(2).rgb, ObjectScene(options)._draw(2).rgb)
    assert not torch.equal(
        ObjectScene(options).view(2).rgb,
        ObjectScene(ObjectSceneOptions("head", num_views=3, size=16, seed=5)).view(2).rgb,
    )


def test_views_are_drawn_once_for_all_processes(monkeypatch):
    options = ObjectSceneOptions("vase", num_views=2, size=12, radius=2.7)
    scene = ObjectScene(options)
    drawn = scene.view(1)
    (file,) = scene.folder.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(ObjectScene, "_draw", lambda self, index: pytest.fail("drawn again"))
        again = ObjectScene(options).view(1)
    for name, value in vars(drawn).items():
        assert torch.equal(getattr(again, name), value) and getattr(again, name).dtype == value.dtype, name
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(ObjectScene(options).view(1).rgb, drawn.rgb), "a damaged file is no reason to stop"
    assert ObjectScene(ObjectSceneOptions("vase", num_views=2, size=12)).folder != scene.folder


def test_forward_facing_cameras_stand_together():
    poses = rig_poses("forward", 30, 2.6)
    middle = torch.tensor([0.0, -math.cos(math.radians(20)), math.sin(math.radians(20))])
    apart = torch.rad2deg(torch.acos((poses[:, :, 2] @ middle).clamp(-1, 1)))
    assert 17 < float(apart.max()) < 22 and float(apart.min()) < 6
    assert torch.pdist(poses[:, :, 3]).min() > 0.05


@pytest.mark.parametrize("rig", ["rings", "ring", "hemisphere", "forward"])
@pytest.mark.parametrize("count", [1, 7])
def test_rigs_look_at_the_origin(rig, count):
    poses = rig_poses(rig, count, 2.6)
    assert poses.shape == (count, 3, 4)
    assert torch.allclose(poses[:, :, 3].norm(dim=-1), torch.tensor(2.6))
    assert torch.allclose(
        poses[:, :, :3] @ poses[:, :, :3].transpose(1, 2), torch.eye(3).expand(count, 3, 3), atol=1e-5
    )
    assert torch.allclose(poses[:, :, 2] * 2.6, poses[:, :, 3], atol=1e-5)
    assert (poses[:, 2, 1] > 0).all(), "up is up"


def test_reference_mesh_lies_on_the_surface():
    target = OBJECTS["torus-box"]
    verts, faces = target.mesh(48)
    assert target.sdf(torch.from_numpy(verts)).abs().max() < 1e-3
    a, b, c = (verts[faces[:, k]] for k in range(3))
    winding = np.cross(b - a, c - a)
    normals = target.normals(torch.from_numpy((a + b + c) / 3)).numpy()
    assert ((winding * normals).sum(-1) > 0).mean() > 0.99, "faces wind outwards"


@pytest.mark.parametrize("options", [dict(name="teapot"), dict(num_views=0), dict(radius=0.9), dict(size=1)])
def test_impossible_scenes_are_refused(options):
    with pytest.raises(InputError):
        ObjectScene(ObjectSceneOptions(**options))
