"""A drawn clip from video files to a capture that the other commands read."""

import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from nerfstudio_ext.cli.human_video import Masks
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.video_capture import covering
from nerfstudio_ext.human.keypoints import SKELETONS
from nerfstudio_ext.human.zju_layout import read_layout
from tests.human.test_masks import SHAPE, clip, joints_at

PLACES = np.linspace(15, 145, 12).astype(int)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two cameras: the second sees everything the other way round."""
    folder = tmp_path_factory.mktemp("videos")
    pictures, masks, _ = clip(PLACES)
    paths = []
    for number, frames in enumerate((pictures, pictures[:, :, ::-1])):
        place = folder / f"cam{number}"
        place.mkdir()
        for k, frame in enumerate(frames):
            Image.fromarray(np.ascontiguousarray(frame)).save(place / f"{k:03d}.png")
        paths.append(place)
    return paths, masks


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    files = {name: cv2.FileStorage(str(folder / f"{name}.yml"), cv2.FILE_STORAGE_WRITE) for name in ("intri", "extri")}
    files["intri"].startWriteStruct("names", cv2.FileNode_SEQ)
    for name in "ab":
        files["intri"].write("", name)
    files["intri"].endWriteStruct()
    for k, name in enumerate("ab"):
        files["intri"].write(f"K_{name}", np.array([[150.0, 0, SHAPE[1] / 2], [0, 150, SHAPE[0] / 2], [0, 0, 1]]))
        files["intri"].write(f"dist_{name}", np.zeros((1, 5)))
        files["extri"].write(f"R_{name}", np.array([[0.0], [np.pi * k], [0.0]]))
        files["extri"].write(f"T_{name}", np.array([[0.0], [0.0], [3.0]]))
    for file in files.values():
        file.release()
    return folder


@pytest.fixture(scope="module")
def keypoints(tmp_path_factory):
    """COCO's joints of all frames in both cameras, in pictures twice as large."""
    values = np.zeros((2, len(PLACES), 17, 3))
    for k, x in enumerate(PLACES):
        for name, point in joints_at(x).items():
            values[0, k, SKELETONS["coco17"].index(name)] = point * [2, 2, 1]
            values[1, k, SKELETONS["coco17"].index(name)] = (point * [-1, 1, 1] + [SHAPE[1] - 1, 0, 0]) * [2, 2, 1]
    path = tmp_path_factory.mktemp("keypoints") / "found.npz"
    np.savez(path, kpts2d=values)
    return path


def overlap(path, wanted):
    found = np.asarray(Image.open(path)) > 0
    return (found & wanted).sum() / (found | wanted).sum()


@pytest.mark.parametrize("with_joints", [False, True])
def test_videos_become_a_capture(videos, calibration, keypoints, with_joints, tmp_path, capsys):
    paths, masks = videos
    more = {"keypoints": keypoints, "keypoint_scale": 0.5} if with_joints else {}
    Masks(tuple(paths), tmp_path / "person", calibration=calibration, begin=1, frames=5, step=2, **more).main()
    told = capsys.readouterr().out
    assert "a for cam0, b for cam1" in told and "5 pictures 160x120" in told
    layout = read_layout(tmp_path / "person")
    assert layout.has_masks() and len(layout.pictures) == 5 and len(layout.cameras) == 2
    np.testing.assert_allclose(layout.cameras[1].translation, [0, 0, 3])
    for frame, (pictures, files) in enumerate(zip(layout.files(), layout.masks())):
        wanted = masks[1 + 2 * frame]
        assert overlap(files[0], wanted) > 0.85 and overlap(files[1], wanted[:, ::-1]) > 0.85
        assert all(path.is_file() for path in pictures)
    for camera in range(2):
        sheet = Image.open(tmp_path / "person" / "sheets" / f"camera_{camera:02d}.jpg")
        assert sheet.size == (6 * 160, 120), "the background and the five pictures"
    if with_joints:
        assert layout.keypoints is not None and layout.keypoints.shape == (5, 2, 17, 3)
        np.testing.assert_allclose(layout.keypoints[0, 0, 0, :2], joints_at(PLACES[1])["nose"][:2])
        assert "ns-ext human fit" in told
    with pytest.raises(InputError, match="not empty"):
        Masks(tuple(paths), tmp_path / "person").main()


def test_without_a_calibration_there_are_pictures_and_masks_alone(videos, tmp_path, capsys):
    Masks(tuple(videos[0]), tmp_path / "person", step=6).main()
    assert not (tmp_path / "person" / "annots.npy").exists() and "no annots.npy" in capsys.readouterr().out


def test_mistakes_are_told(videos, calibration, keypoints, tmp_path):
    paths, _ = videos
    for options, message in [
        (dict(videos=()), "Name the videos"),
        (dict(frames=20), "shortest video has 12 frames"),
        (dict(videos=(paths[0],), calibration=calibration), "1 videos, but a calibration of 2"),
        (dict(videos=(paths[0],), keypoints=keypoints), "1 videos, but key points of 2"),
        (dict(calibration=calibration, size=(400, 300)), "not near the middle of 400x300"),
        (dict(keypoints=keypoints, skeleton="body25"), "17 joints"),
        (dict(strictness=1e4), "shows nobody"),
    ]:
        settings = {"videos": tuple(paths), "output": tmp_path / "new", **options}
        with pytest.raises(InputError, match=message):
            Masks(**settings).main()
        assert not list(tmp_path.iterdir()), "nothing is left, so that it can be tried again"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs Python's tomllib")
def test_what_a_calibration_says_of_its_videos_is_heeded(videos, tmp_path):
    """The size that it was made for, and whose camera is whose."""
    paths, _ = videos
    table = """[{name}]
size = [200, 150]
matrix = [[150.0, 0.0, 80.0], [0.0, 150.0, 60.0], [0.0, 0.0, 1.0]]
distortions = [0.0, 0.0, 0.0, 0.0]
rotation = [0.0, 0.0, 0.0]
translation = [0.0, 0.0, 3.0]
"""
    for order, told in ((paths, "made for 200x150 pictures, and these are 160x120: give the size"),
                        (paths[::-1], f"come as {paths[1].stem}, {paths[0].stem}, but")):  # fmt: skip
        (tmp_path / "c.toml").write_text("".join(table.format(name=path.stem) for path in paths))
        with pytest.raises(InputError, match=told):
            Masks(tuple(order), tmp_path / "new", calibration=tmp_path / "c.toml").main()


def test_pictures_cover_a_size_and_are_cut_about_the_middle():
    picture = np.zeros((50, 100, 3), np.uint8)
    picture[20:30, 45:55] = 255
    small = covering(picture, (20, 20))
    assert small.shape == (20, 20, 3)
    rows, columns = np.nonzero(small[..., 0] > 128)
    assert abs(rows.mean() - 9.5) < 0.6 and abs(columns.mean() - 9.5) < 0.6 and len(rows) == 16
    assert covering(picture, None) is picture
