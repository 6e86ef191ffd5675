import math
import re
from pathlib import Path

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.scene_box import SceneBox

from nerfstudio_ext.data.normalise import (
    bring_into,
    find_normalisation,
    frame_of,
    is_frame,
    report_rays,
    require_finite,
)
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.rigs import rig_poses


def cameras(radius, centre=(0.0, 0.0, 0.0)):
    poses = rig_poses("rings", 8, radius)
    poses[:, :, 3] += torch.tensor(centre)
    return Cameras(poses, fx=10.0, fy=10.0, cx=5.0, cy=5.0, width=10, height=10)


def test_good_cameras_stay():
    found = find_normalisation(cameras(2.5), "auto")
    assert found.scale == 1 and "stay there" in found.report


@pytest.mark.parametrize("radius", [0.9, 4.0])
def test_others_are_moved_and_the_way_back_is_known(radius):
    centre = (0.5, -1.0, 2.0)
    moved = cameras(radius, centre)
    world = moved.camera_to_worlds[:, :, 3].clone()
    found = find_normalisation(moved, "auto")
    outputs = DataparserOutputs([], moved, scene_box=SceneBox(torch.zeros(2, 3)), dataparser_scale=1.0)
    found.apply(outputs)
    positions = outputs.cameras.camera_to_worlds[:, :, 3]
    assert torch.allclose(positions.norm(dim=-1), torch.tensor(3 / 1.1), atol=1e-3)
    transform = outputs.dataparser_transform
    again = outputs.dataparser_scale * (world @ transform[:, :3].T + transform[:, 3])
    assert torch.allclose(again, positions, atol=1e-4)


def test_cameras_that_only_reach_the_right_distance_are_moved():
    """The farthest camera alone says nothing: these surround a point far from the origin."""
    beside = cameras(0.8, (1.5, 0.0, 0.0))
    assert 2 <= float(beside.camera_to_worlds[:, :, 3].norm(dim=-1).max()) < 3
    found = find_normalisation(beside, "auto")
    assert torch.allclose(found.centre, torch.tensor([1.5, 0, 0]), atol=1e-3)
    assert found.scale == pytest.approx(3 / 1.1 / 0.8, rel=1e-3)


def test_one_camera_near_the_object_moves_all():
    near = cameras(2.5)
    near.camera_to_worlds[0, :, 3] *= 0.2
    assert find_normalisation(near, "auto").scale == pytest.approx(3 / 1.1 / 2.5, rel=1e-2)


def test_the_file_may_be_kept_with_a_word():
    assert "8 of them outside" in find_normalisation(cameras(4.0), "file").report
    assert "too close" in find_normalisation(cameras(0.9), "file").report
    both = cameras(4.0)
    both.camera_to_worlds[0, :, 3] *= 0.1
    report = find_normalisation(both, "file").report
    assert "7 of them outside" in report and "too close" in report
    assert find_normalisation(cameras(2.5), "cameras").scale == pytest.approx(3 / 1.1 / 2.5, rel=1e-3)


@pytest.mark.parametrize("radius", [2.5, 5.0, 10.0])
def test_rays_that_hit_the_sphere_are_counted(radius):
    """A unit sphere at distance d fills a circle of radius 1 / sqrt(d^2 - 1) in a picture whose sides are 1 long."""
    found = re.match(r"(\d+)% of their rays hit the sphere of radius 1", report_rays(cameras(radius)))
    assert found is not None and int(found[1]) / 100 == pytest.approx(math.pi / (radius**2 - 1), abs=0.02)


def test_rays_that_miss_everything_are_told():
    assert "miss" not in report_rays(cameras(2.0))
    away = cameras(4.0)
    away.camera_to_worlds[:4, :, :3] = away.camera_to_worlds[:4, :, :3] * torch.tensor([-1.0, 1.0, -1.0])
    assert "and 50% miss that of radius 3" in report_rays(away)


def test_broken_poses_are_named():
    broken = DataparserOutputs([Path(f"{k}.png") for k in range(8)], cameras(2.5))
    require_finite(broken, "held-out")
    broken.cameras.camera_to_worlds[3, 0, 3] = float("nan")
    with pytest.raises(InputError, match=r"held-out camera 3 \(3\.png\)"):
        require_finite(broken, "held-out")


def test_cameras_are_brought_into_another_frame():
    """As when a parser turns and scales the world by all cameras, and a photo more has been added since."""
    turned = torch.linalg.qr(torch.randn(3, 3))[0]
    turned *= torch.linalg.det(turned).sign()
    world = cameras(4.0, (5.0, -1.0, 2.0)).camera_to_worlds

    def outputs(rotation, shift, scale):
        moved = cameras(4.0)
        moved.camera_to_worlds = torch.cat(
            [rotation @ world[:, :, :3], scale * (rotation @ world[:, :, 3:] + shift[:, None])], dim=-1
        )
        transform = torch.cat([rotation, shift[:, None]], dim=1)
        return DataparserOutputs(
            [], moved, scene_box=SceneBox(torch.zeros(2, 3)), dataparser_transform=transform, dataparser_scale=scale
        )

    trained = outputs(turned, torch.tensor([0.1, 0.2, 0.3]), 0.3)
    now = outputs(torch.eye(3), torch.tensor([-5.0, 1.0, -2.0]), 0.7)
    assert not is_frame(frame_of(now), frame_of(trained))
    bring_into(now, frame_of(trained))
    assert is_frame(frame_of(now), frame_of(trained))
    assert torch.allclose(now.cameras.camera_to_worlds, trained.cameras.camera_to_worlds, atol=1e-4)
    assert now.dataparser_scale == pytest.approx(0.3, rel=1e-5)
