"""One's own photo: both kinds of keypoints give the same projection, and what does not fit is said in one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.single_photo import BONES, PARENTS, read_photo

NAMES = tuple(f"joint_{k}" for k in range(24))
HEIGHT, WIDTH = 90, 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A photo of a red rectangle with 24 keypoints in it."""
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[10:80, 20:45] = [200, 30, 30, 255]
    Image.fromarray(rgba).save(tmp_path / "photo.png")
    Image.fromarray(rgba[..., 3]).save(tmp_path / "mask.png")
    random = np.random.default_rng(0)
    points = np.stack([random.uniform(22, 43, 24), random.uniform(12, 78, 24), random.uniform(-5, 5, 24)], axis=1)
    write(tmp_path / "keypoints.json", {"keypoint_names": list(NAMES), "keypoints": points.tolist()})
    return tmp_path


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def read(folder: Path, photo: str = "photo.png", mask: str = ""):
    return read_photo(folder / photo, folder / "keypoints.json", folder / mask if mask else None, NAMES, 32)


def test_an_uncalibrated_photo_is_an_adult_in_weak_perspective(folder: Path):
    photo = read(folder)
    assert not bool(photo.camera.perspective[0])
    points = photo.keypoints[0]
    bones = points[1:] - points[list(PARENTS[1:])]
    assert float(bones.norm(dim=-1).sum()) == pytest.approx(BONES, rel=1e-4)
    given = torch.tensor(json.loads((folder / "keypoints.json").read_text())["keypoints"])
    places = photo.camera.project(photo.camera.local(photo.keypoints))[0]
    # The framed square is 70 / 0.85 pixels wide and centred on the rectangle's middle.
    expected = (given[:, :2] - torch.tensor([32.5, 45.0])) / (70 / 0.85 / 2)
    torch.testing.assert_close(places, expected, atol=1e-3, rtol=0)
    # World axes: right, away, up; so the lower in the picture, the lower in the world.
    assert torch.corrcoef(torch.stack([points[:, 2], given[:, 1]]))[0, 1] < -0.99
    assert torch.corrcoef(torch.stack([points[:, 1], given[:, 2]]))[0, 1] > 0.99
    inside = photo.mask[0, 0] > 0.5
    assert float(photo.rgb[0, 0][inside].min()) > 0.75 and not photo.rgb[0][:, ~inside].any()


def test_a_mask_of_its_own_is_the_transparency(folder: Path):
    Image.open(folder / "photo.png").convert("L").save(folder / "gray.png")
    assert torch.equal(read(folder, "gray.png", "mask.png").mask, read(folder).mask)


def test_a_calibrated_photo_has_perspective(folder: Path):
    pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 3], [0, 0, 0, 1]]
    frame = {"file_path": "photo.png", "transform_matrix": pose, "fl_x": 90.0, "cx": 30.0, "cy": 45.0}
    points = np.random.default_rng(0).uniform([-0.2, -0.8, -0.1], [0.3, 0.8, 0.1], (24, 3))
    found = {"keypoint_names": list(NAMES), "keypoints3d": points.tolist(), "frames": [frame]}
    write(folder / "keypoints.json", found)
    photo = read(folder)
    assert bool(photo.camera.perspective[0])
    depth = 3 - torch.from_numpy(points[:, 2]).float()
    x = 30 + 90 * torch.from_numpy(points[:, 0]).float() / depth
    places = photo.camera.project(photo.camera.local(photo.keypoints))[0]
    torch.testing.assert_close(places[:, 0], (x - 32.5) / (70 / 0.85 / 2), atol=1e-3, rtol=0)
    write(folder / "keypoints.json", {**found, "frames": [{**frame, "file_path": "other.png"}]})
    with pytest.raises(InputError, match="0 times among its frames"):
        read(folder)
    write(folder / "keypoints.json", {**found, "k1": 0.2})
    with pytest.raises(InputError, match="undistort"):
        read(folder)


def test_what_does_not_fit_is_refused(folder: Path):
    good = json.loads((folder / "keypoints.json").read_text())
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "opaque.png")
    with pytest.raises(InputError, match="give --mask"):
        read(folder, "opaque.png")
    with pytest.raises(InputError, match="There is no"):
        read(folder, "none.png")
    Image.new("L", (WIDTH, HEIGHT)).save(folder / "empty.png")
    with pytest.raises(InputError, match="no person"):
        read(folder, mask="empty.png")
    two = np.zeros((HEIGHT, WIDTH), np.uint8)
    two[10:80, 5:20] = two[10:80, 30:50] = 255
    Image.fromarray(two).save(folder / "two.png")
    with pytest.raises(InputError, match="more than one person"):
        read(folder, mask="two.png")
    for change, message in (
        ({"keypoint_names": NAMES[:23], "keypoints": good["keypoints"][:23]}, "lacks keypoints .*joint_23"),
        ({"keypoints": [[0.0, 1.0]] * 24}, "three finite numbers"),
        ({"keypoints": [[x + 100, y, z] for x, y, z in good["keypoints"]]}, "0 of 24 keypoints fall on the person"),
    ):
        write(folder / "keypoints.json", {**good, **change})
        with pytest.raises(InputError, match=message):
            read(folder)
    (folder / "keypoints.json").write_text("[")
    with pytest.raises(InputError, match="not JSON"):
        read(folder)
