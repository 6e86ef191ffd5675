"""The screen in the scene: pixel for pixel from its own camera, in perspective from any other."""

import math

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from nerfstudio_ext.video.screen import SCREEN_WIDTH, screen_camera_to_world, view_screen

HEIGHT, WIDTH = 18, 30
SIDE = math.sqrt(0.5)


def dataset_camera(height=HEIGHT, width=WIDTH, pose=None, focal=None):
    """The camera of the dataset, or one like it elsewhere."""
    return Cameras(
        camera_to_worlds=(screen_camera_to_world() if pose is None else pose)[None],
        fx=float(focal or width),
        fy=float(focal or width),
        cx=width / 2,
        cy=height / 2,
        width=width,
        height=height,
        camera_type=CameraType.PERSPECTIVE,
    )


def looking_at(position, target=(0.0, 0.0, 0.0)):
    """Upright pose (OpenGL axes) at a place, looking at another."""
    position, target = torch.tensor(position), torch.tensor(target)
    backward = torch.nn.functional.normalize(position - target, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), backward), dim=0)
    up = torch.linalg.cross(backward, right)
    return torch.stack([right, up, backward, position], dim=1)


def ramp(height=HEIGHT, width=WIDTH):
    """A picture whose red is its pixel's column and whose green is its row: sampling tells where a ray went."""
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([columns, rows, torch.ones_like(rows)])


def hit(camera, row, column):
    """Independent ray-plane intersection in float64: picture column and row, and distance; None beside the screen."""
    fx, cx, cy = (float(x) for x in (camera.fx[0], camera.cx[0], camera.cy[0]))
    pose = camera.camera_to_worlds[0].double()
    direction = pose[:, :3] @ torch.tensor(
        [(column + 0.5 - cx) / fx, -(row + 0.5 - cy) / fx, -1.0], dtype=torch.float64
    )
    origin = pose[:, 3]
    normal = torch.tensor([SIDE, SIDE, 0.0], dtype=torch.float64)
    along = -float(origin @ normal) / float(direction @ normal)
    point = origin + along * direction
    x = float(point @ torch.tensor([-SIDE, SIDE, 0.0], dtype=torch.float64)) / SCREEN_WIDTH
    z = float(point[2]) / SCREEN_WIDTH
    column, row = WIDTH * (x + 0.5), HEIGHT / 2 - z * WIDTH
    if along <= 0 or not (0 <= column <= WIDTH and 0 <= row <= HEIGHT):
        return None
    return column, row, along * float(direction.norm())


def test_pose_is_upright_and_faces_the_visitor():
    pose = screen_camera_to_world()
    rotation = pose[:, :3]
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3))
    assert float(torch.linalg.det(rotation)) == pytest.approx(1.0)
    torch.testing.assert_close(rotation[:, 1], torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(pose[:, 3], SCREEN_WIDTH * torch.tensor([SIDE, SIDE, 0.0]))


@pytest.mark.parametrize("height, width", [(18, 30), (17, 31), (1, 1), (5, 640), (270, 480), (300, 7)])
def test_dataset_camera_gives_the_picture_pixel_for_pixel(height, width):
    pictures = {"rgb": torch.rand(3, height, width), "error": torch.rand(1, height, width)}
    views = view_screen(dataset_camera(height, width), pictures)
    assert list(views) == ["rgb", "accumulation", "depth", "error"]
    assert torch.equal(views["rgb"], pictures["rgb"].permute(1, 2, 0))
    assert torch.equal(views["error"], pictures["error"].permute(1, 2, 0))
    assert torch.equal(views["accumulation"], torch.ones(height, width, 1))


def test_depth_is_the_distance_along_the_ray():
    depth = view_screen(dataset_camera(), {"rgb": ramp()})["depth"]
    for row, column in [(0, 0), (9, 15), (17, 29), (3, 22)]:
        x, y = (column + 0.5 - WIDTH / 2) / WIDTH, (row + 0.5 - HEIGHT / 2) / WIDTH
        assert float(depth[row, column]) == pytest.approx(SCREEN_WIDTH * math.sqrt(1 + x * x + y * y), rel=1e-5)


@pytest.mark.parametrize(
    "position, target",
    [
        ((0.6, 0.2, 0.0), (0.0, 0.0, 0.0)),
        ((0.1, 0.5, 0.3), (0.0, 0.0, 0.0)),
        ((0.3, 0.3, -0.2), (0.05, 0.0, 0.05)),
    ],
)
def test_other_cameras_see_perspective(position, target):
    camera = dataset_camera(24, 36, looking_at(position, target))
    views = view_screen(camera, {"rgb": ramp()})
    seen = 0
    for row in range(0, 24, 3):
        for column in range(0, 36, 3):
            expected = hit(camera, row, column)
            assert float(views["accumulation"][row, column]) == (expected is not None)
            if expected is None:
                assert views["rgb"][row, column].tolist() == [0, 0, 0] and float(views["depth"][row, column]) == 0
                continue
            x, y, distance = expected
            # Half a pixel from the border a picture repeats its last value.
            x, y = min(max(x, 0.5), WIDTH - 0.5), min(max(y, 0.5), HEIGHT - 0.5)
            assert views["rgb"][row, column].tolist() == pytest.approx([x, y, 1.0], abs=2e-3)
            assert float(views["depth"][row, column]) == pytest.approx(distance, rel=1e-4)
            seen += 1
    assert seen > 20


def test_a_step_aside_shows_parallax():
    """A camera moved to the right along the screen sees it shifted left by exactly that share of its width."""
    pose = screen_camera_to_world()
    pose[:, 3] += pose[:, 0] * SCREEN_WIDTH * 10 / WIDTH
    views = view_screen(dataset_camera(pose=pose), {"rgb": ramp()})
    torch.testing.assert_close(views["rgb"][:, :20], ramp().permute(1, 2, 0)[:, 10:], rtol=0, atol=1e-3)
    assert float(views["accumulation"][:, :20].min()) == 1 and float(views["accumulation"][:, 20:].max()) == 0


def test_from_behind_the_screen_is_mirrored():
    views = view_screen(dataset_camera(pose=looking_at((-SIDE / 2, -SIDE / 2, 0.0))), {"rgb": ramp()})
    expected = ramp().flip(-1).permute(1, 2, 0)
    torch.testing.assert_close(views["rgb"], expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    "pose",
    [
        looking_at((0.4, 0.4, 0.0), (1.0, 1.0, 0.0)),  # back turned to the screen
        looking_at((1.0, -1.0, 0.0)),  # in the screen's plane: sees its edge
        looking_at((0.3, 0.3, 0.0), (0.3 - SIDE, 0.3 + SIDE, 0.0)),  # looking along the screen
    ],
)
def test_where_no_screen_is_everything_is_zero_and_finite(pose):
    views = view_screen(dataset_camera(5, 5, pose, focal=50.0), {"rgb": torch.rand(3, 9, 12)})
    for view in views.values():
        assert torch.equal(view, torch.zeros_like(view))


def test_distant_views_average():
    """From eight screens away single-pixel checks are grey; point samples would flicker between black and white."""
    height, width = 96, 160
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    checks = ((rows + columns) % 2).float().expand(3, -1, -1)
    pose = looking_at((8.3 * SIDE * SCREEN_WIDTH, 8.3 * SIDE * SCREEN_WIDTH, 0.0))
    views = view_screen(dataset_camera(height, width, pose), {"rgb": checks})
    inside = views["accumulation"][..., 0] > 0
    assert 11 * 19 <= int(inside.sum()) <= 13 * 21
    assert (views["rgb"][inside] - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("divisor", [2, 4])
def test_a_smaller_picture_of_the_same_view_is_an_average(divisor):
    """The viewer asks for small pictures while the camera moves."""
    height, width = 48, 80
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 8), (height, width), mode="bicubic")[0]
    camera = dataset_camera(height // divisor, width // divisor)
    view = view_screen(camera, {"rgb": picture})["rgb"].permute(2, 0, 1)
    expected = torch.nn.functional.avg_pool2d(picture[None], divisor)[0]
    assert (view - expected).abs().mean() < 0.02
    assert (view.mean() - picture.mean()).abs() < 0.005


@pytest.mark.parametrize("index", [0, slice(0, 1)])
def test_one_camera_with_or_without_a_batch_axis(index):
    pictures = {"rgb": torch.rand(3, HEIGHT, WIDTH)}
    views = view_screen(dataset_camera()[index], pictures)
    assert torch.equal(views["rgb"], pictures["rgb"].permute(1, 2, 0))
