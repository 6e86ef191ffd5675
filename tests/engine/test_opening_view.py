import types
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from nerfstudio_ext.engine.opening_view import OpeningView, opening_view
from nerfstudio_ext.procedural.rigs import rig_poses


def cameras(poses):
    return Cameras(poses, fx=10.0, fy=10.0, cx=5.0, cy=5.0, width=10, height=10)


def test_looks_from_the_first_camera_at_what_all_see():
    poses = rig_poses("rings", 8, 2.5)
    poses[:, :, 3] += torch.tensor([1.0, 2.0, 3.0])
    position, look_at = opening_view(cameras(poses))
    centre = torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(position, centre + 0.9 * (poses[0, :, 3] - centre), atol=1e-4)
    assert torch.allclose(look_at, centre, atol=1e-4)


def test_one_camera_looks_ahead():
    poses = rig_poses("rings", 8, 2.5)[:1]
    position, look_at = opening_view(cameras(poses))
    assert torch.allclose(torch.nn.functional.normalize(look_at - position, dim=0), -poses[0, :, 2], atol=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_nobody_looks_straight_down_or_up(sign):
    pose = torch.tensor([[1.0, 0, 0, 0], [0, sign, 0, 0], [0, 0, sign, 2 * sign]])[None]
    position, look_at = opening_view(cameras(pose))
    across = torch.nn.functional.normalize(look_at - position, dim=0)[:2].norm()
    assert 0.05 < float(across) < 0.2


def test_whoever_connects_is_moved_in_the_viewers_units():
    connected = []
    server = types.SimpleNamespace(on_client_connect=connected.append)
    OpeningView(cameras(rig_poses("rings", 8, 2.5)))._setup(types.SimpleNamespace(viser_server=server))
    client = types.SimpleNamespace(camera=types.SimpleNamespace(), atomic=nullcontext)
    connected[0](client)
    assert np.linalg.norm(client.camera.position) == pytest.approx(22.5) and np.abs(client.camera.look_at).max() < 1e-3
