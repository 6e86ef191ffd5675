"""Features of a body: distances of a ball are known, and its near half is what a camera sees."""

import pytest
import torch
import trimesh

from nerfstudio_ext.human.body_surface import WIDTH, BodySurface
from nerfstudio_ext.human.photo_camera import PhotoCamera

RADIUS = 0.5


def ball() -> BodySurface:
    mesh = trimesh.creation.icosphere(4, RADIUS)
    vertices = torch.tensor(mesh.vertices).float()
    return BodySurface(vertices, torch.tensor(mesh.faces), vertices / RADIUS)


def camera(perspective: bool) -> PhotoCamera:
    """Stands at z = -3 and looks along +z."""
    motion = torch.cat([torch.eye(3), torch.tensor([[0.0], [0.0], [3.0]])], dim=1)[None]
    return PhotoCamera(motion, torch.ones(1, 1), torch.zeros(1, 2), torch.tensor([[perspective]]))


def test_distance_normal_and_part_of_the_nearest_skin():
    points = torch.nn.functional.normalize(torch.randn(200, 3), dim=-1)
    radius = torch.linspace(0.1, 1.2, 200)[:, None]
    turn = torch.tensor([[0.0, 1.0, 0.0, 0.3], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 3.0]])
    found = ball().features(points * radius, turn)
    assert found.shape == (200, WIDTH)
    torch.testing.assert_close(found[:, :1], radius - RADIUS, atol=0.004, rtol=0)
    torch.testing.assert_close(found[:, 1:4], points @ turn[:, :3].T, atol=0.15, rtol=0)
    torch.testing.assert_close(found[:, 4:], points, atol=0.05, rtol=0)


@pytest.mark.parametrize("perspective", [False, True])
def test_the_camera_sees_the_near_half(perspective: bool):
    # Skin that is nearly edge-on may go either way: the question is asked a little off it.
    points = torch.nn.functional.normalize(torch.randn(500, 3), dim=-1) * 0.6
    edge = -(RADIUS**2) / 3 if perspective else 0.0  # where rays from the camera's place graze the ball
    sure = (points[:, 2] * RADIUS / 0.6 - edge).abs() > 0.08
    seen = ball().seen(points, camera(perspective))
    assert torch.equal(seen[sure], (points[:, 2] * RADIUS / 0.6 < edge)[sure])
