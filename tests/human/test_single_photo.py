"""One's own photo: both kinds of keypoints give the same projection, and what does not fit is said in one sentence."""

import json
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human import single_photo
from nerfstudio_ext.human.single_photo import BONES, PARENTS, read_photo
from nerfstudio_ext.procedural.person import BODY_KEYPOINTS
from tests.human.standing import standing

NAMES = tuple(BODY_KEYPOINTS)
HEIGHT, WIDTH = 90, 60
SCALE = 40.0
"""Pixels in a metre of the person, who stands in the rectangle."""
POINTS = np.array(standing(NAMES)) * SCALE + [32.5, 10.0, 0.0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A photo of a red rectangle with 24 keypoints in it."""
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[10:80, 20:45] = [200, 30, 30, 255]
    Image.fromarray(rgba).save(tmp_path / "photo.png")
    Image.fromarray(rgba[..., 3]).save(tmp_path / "mask.png")
    write(tmp_path / "keypoints.json", {"keypoint_names": list(NAMES), "keypoints": POINTS.tolist()})
    return tmp_path


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def found(folder: Path, photo: str = "photo.png", mask: str = ""):
    return read_photo(folder / photo, folder / "keypoints.json", folder / mask if mask else None, NAMES, 32)


def read(folder: Path, photo: str = "photo.png", mask: str = ""):
    return found(folder, photo, mask)[0]


def calibrated(**changes: Any) -> Dict[str, Any]:
    """The same person 3 m before a camera with perspective."""
    points = np.array(standing(NAMES)) * [1, -1, -1] + [0, 0.88, 0]
    pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 3], [0, 0, 0, 1]]
    frame = {"file_path": "photo.png", "transform_matrix": pose, "fl_x": 120.0, "cx": 32.5, "cy": 45.0}
    return {"keypoint_names": list(NAMES), "keypoints3d": points.tolist(), "frames": [{**frame, **changes}]}


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
    write(folder / "keypoints.json", calibrated())
    photo, notes = found(folder)
    assert bool(photo.camera.perspective[0]) and not notes
    points = torch.tensor(calibrated()["keypoints3d"])
    x = 32.5 + 120 * points[:, 0] / (3 - points[:, 2])
    places = photo.camera.project(photo.camera.local(photo.keypoints))[0]
    torch.testing.assert_close(places[:, 0], (x - 32.5) / (70 / 0.85 / 2), atol=1e-3, rtol=0)


POSE = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 3], [0, 0, 0, 1]])
BAD_CAMERAS = {
    "other.png": ({"file_path": "other.png"}, "0 times among its frames"),
    "no name": ({"file_path": None}, "0 times among its frames"),
    "twice as large": ({"transform_matrix": (2 * POSE).tolist()}, "no rotation"),
    "mirrored": ({"transform_matrix": (POSE * [-1, 1, 1, 1]).tolist()}, "mirrors"),
    "two by two": ({"transform_matrix": [[1, 0], [0, 1]]}, "rows of 4 numbers"),
    "no focal length": ({"fl_x": 0}, "more than 0"),
    "a word": ({"fl_x": "wide"}, "no number"),
    "wide pixels": ({"fl_y": 240.0}, "square pixels"),
    "distorted": ({"k1": 0.2}, "undistort"),
    "fourth term": ({"k4": 0.2}, "undistort"),
    "fisheye": ({"camera_model": "OPENCV_FISHEYE"}, "undistort"),
    "another size": ({"w": 60, "h": 91}, "intrinsics are for"),
}


@pytest.mark.parametrize("name", list(BAD_CAMERAS))
def test_cameras_that_cannot_be_are_refused(folder: Path, name: str):
    changes, message = BAD_CAMERAS[name]
    write(folder / "keypoints.json", calibrated(**changes))
    with pytest.raises(InputError, match=message):
        read(folder)


@pytest.mark.parametrize("frames", [None, ["a"], "photo.png", [None]])
def test_frames_of_another_kind_are_refused(folder: Path, frames: Any):
    write(folder / "keypoints.json", {**calibrated(), "frames": frames})
    with pytest.raises(InputError, match="0 times among its frames"):
        read(folder)


def swapped(one: str, other: str) -> np.ndarray:
    points = POINTS.copy()
    points[[NAMES.index(one), NAMES.index(other)]] = points[[NAMES.index(other), NAMES.index(one)]]
    return points


def test_keypoints_may_err_by_centimetres(folder: Path):
    wrong = POINTS + np.random.default_rng(0).normal(size=POINTS.shape) * [0, 0, 0.03 * SCALE]
    wrong += np.random.default_rng(1).normal(size=POINTS.shape) * 0.02 * SCALE
    write(folder / "keypoints.json", {"keypoint_names": list(NAMES), "keypoints": wrong.tolist()})
    assert not found(folder)[1]


BAD_POINTS = {
    "too few": ({"keypoint_names": NAMES[:23], "keypoints": POINTS[:23].tolist()}, f"lacks keypoints .*{NAMES[23]}"),
    "flat": ({"keypoints": (POINTS * [1, 1, 0]).tolist()}, "needs depths"),
    "depth reversed": ({"keypoints": (POINTS * [1, 1, -1]).tolist()}, "backwards"),
    "two numbers": ({"keypoints": [[0.0, 1.0]] * 24}, "three finite numbers"),
    "nothing": ({"keypoints": [None] * 24}, "three finite numbers"),
    "an object": ({"keypoints": dict(zip(NAMES, POINTS.tolist()))}, "as many keypoints"),
    "no names": ({"keypoint_names": 5}, "as many keypoints"),
    "beside": ({"keypoints": (POINTS + [100, 0, 0]).tolist()}, "0 of 24 keypoints fall on the person"),
    "half as large": ({"keypoints": (POINTS * 0.5 + [16, 20, 0]).tolist()}, "span"),
    "another order": ({"keypoints": POINTS[::-1].tolist()}, "no body|long, but the"),
    "knee and hand": ({"keypoints": swapped("left_knee", "left_hand").tolist()}, "no body|long, but the"),
}


@pytest.mark.parametrize("name", list(BAD_POINTS))
def test_keypoints_that_no_person_has_are_refused(folder: Path, name: str):
    changes, message = BAD_POINTS[name]
    write(folder / "keypoints.json", {**json.loads((folder / "keypoints.json").read_text()), **changes})
    with pytest.raises(InputError, match=message):
        read(folder)


def test_files_that_say_nothing_are_refused(folder: Path):
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "opaque.png")
    with pytest.raises(InputError, match="give --mask"):
        read(folder, "opaque.png")
    Image.new("L", (WIDTH, HEIGHT)).save(folder / "empty.png")
    with pytest.raises(InputError, match="no person"):
        read(folder, mask="empty.png")
    (folder / "keypoints.json").write_text("[")
    with pytest.raises(InputError, match="not JSON"):
        read(folder)


def test_parts_of_the_mask_that_no_keypoint_touches_are_left_out(folder: Path):
    """Somebody beside the person goes; legs that something in front cuts off from the body stay."""
    parts = np.array(Image.open(folder / "mask.png"))
    parts[50:53] = 0
    parts[20:60, 50:58] = 255
    Image.fromarray(parts).save(folder / "parts.png")
    photo, notes = found(folder, mask="parts.png")
    assert len(notes) == 1 and "16% of the mask" in notes[0]
    alone = read(folder).mask
    assert float((photo.mask - alone).abs().sum()) <= 2 * float(alone.sum()) * 3 / 70
    assert photo.mask[..., 20:, :].any(), "legs"


def test_a_second_person_who_touches_the_first_is_refused(folder: Path):
    together = np.array(Image.open(folder / "mask.png"))
    together = np.concatenate([together, together[:, 20:45], together[:, 20:45], together[:, 20:45]], axis=1)
    together[40:50, 30:] = 255
    Image.fromarray(together).save(folder / "two.png")
    Image.new("RGB", together.shape[::-1]).save(folder / "wide.png")
    with pytest.raises(InputError, match=r"span|near the keypoints"):
        read(folder, "wide.png", "two.png")


def test_what_the_edge_cuts_off_is_named(folder: Path):
    photo = Image.open(folder / "photo.png")
    photo.crop((0, 0, WIDTH, 75)).save(folder / "shins.png")
    notes = found(folder, "shins.png")[1]
    assert len(notes) == 1 and "(left_ankle, right_ankle, left_foot, right_foot lie outside" in notes[0]
    photo.crop((0, 0, WIDTH, 79)).save(folder / "soles.png")
    assert "touches the edge" in found(folder, "soles.png")[1][0]
    photo.crop((0, 0, WIDTH, 55)).save(folder / "half.png")
    with pytest.raises(InputError, match=r"too little of the person, whose .*knee"):
        read(folder, "half.png")


def test_only_the_person_of_a_large_photo_is_made_numbers_of(folder: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    frame = single_photo.frame_pictures
    monkeypatch.setattr(single_photo, "frame_pictures", lambda *x: seen.append(x[0].shape) or frame(*x))
    alone = read(folder)
    large = Image.new("RGBA", (900, 700))
    large.paste(Image.open(folder / "photo.png"), (500, 300))
    large.save(folder / "photo.png")
    moved = {"keypoint_names": list(NAMES), "keypoints": (POINTS + [500, 300, 0]).tolist()}
    write(folder / "keypoints.json", moved)
    photo = read(folder)
    assert [tuple(shape) for shape in seen] == [(1, 3, 70, 25)] * 2
    torch.testing.assert_close(photo.rgb, alone.rgb, atol=1e-3, rtol=0)
    places = [x.camera.project(x.camera.local(x.keypoints)) for x in (photo, alone)]
    torch.testing.assert_close(*places, atol=1e-3, rtol=0)
