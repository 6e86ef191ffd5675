import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from nerfstudio_ext.cli.main import main
from nerfstudio_ext.export.refined_calibration import write_capture_file
from nerfstudio_ext.export.video_capture import write_annots
from nerfstudio_ext.human.camera_files import read_cameras, write_easymocap
from nerfstudio_ext.human.neutral_layout import read_neutral
from nerfstudio_ext.human.zju_layout import read_layout
from tests.human.rig import SIDE, apart, detected, ring, shaken, walk

NAMES = ["cam 1", "cam 2", "cam 3"]


@pytest.fixture
def shoot(tmp_path):
    """A calibration that is off, key points at half the size, a short film of the first camera; and the truth."""
    truth = ring(5, distortion=-0.05)[:3]
    (tmp_path / "delivered").mkdir()
    write_easymocap(tmp_path / "delivered", NAMES, [shaken(camera, 3.0, 1.5, k) for k, camera in enumerate(truth)])
    keypoints = detected(walk(), truth).scaled(0.5)
    np.savez(tmp_path / "pose.npz", kpts2d=keypoints.values.transpose(1, 0, 2, 3))
    for k in range(20):
        (tmp_path / "film").mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (10 * k, 90, 60)).save(tmp_path / "film" / f"{k:03d}.png")
    return tmp_path, truth


def run(*words):
    with pytest.raises(SystemExit) as ended:
        main(["human", "refine-cameras", *map(str, words)])
    return ended.value.code


def test_a_calibration_becomes_a_better_one(shoot, capsys):
    folder, truth = shoot
    options = ("--keypoints", folder / "pose.npz", "--keypoint-scale", 2)
    assert run(folder / "delivered", folder / "refined", *options, "--videos", *[folder / "film"] * 3) == 0
    told = capsys.readouterr().out
    assert re.search(r"human masks .*film .*--keypoint-scale 2", told)
    assert "cam_1" in told and "held out: median" in told and "of the longer side" in told
    names, cameras = read_cameras(folder / "refined")
    assert names == ["cam_1", "cam_2", "cam_3"] and [camera.size for camera in cameras] == [(SIDE, SIDE)] * 3
    _, delivered = read_cameras(folder / "delivered")
    assert apart(cameras, truth)[0] < 0.004 and apart(delivered, truth)[0] > 0.01
    for camera, was in zip(cameras, delivered):
        np.testing.assert_array_equal(camera.calibration, was.calibration)
        np.testing.assert_array_equal(camera.distortion, was.distortion)
    sheet = np.asarray(Image.open(folder / "refined" / "cameras.jpg")).reshape(-1, 3)
    assert (abs(sheet.astype(int) - [255, 60, 200]).max(1) < 60).sum() > 100, "errors before are drawn"

    assert run(folder / "refined", folder / "again", *options) == 1
    assert "Nothing is gained" in capsys.readouterr().err and not (folder / "again").exists()
    assert run(folder / "delivered", folder / "refined", *options) == 1
    assert "is not empty" in capsys.readouterr().err


def test_what_cannot_be_refined_is_told(shoot, capsys):
    folder, _ = shoot
    start, options = (folder / "delivered", folder / "refined"), ("--keypoints", folder / "pose.npz")
    for words, message in (
        (("--size", 64, 64), f"was made for {SIDE}x{SIDE} pictures"),
        (("--begin", 18), "has 2 frames: at least 5"),
        (("--frames", 21), "20 frames, too few for --begin 0 --frames 21"),
        (("--videos", folder / "film"), "1 videos and 3 cameras"),
        (("--videos", *[folder / "missing"] * 3), "missing does not exist"),
        (("--keypoint-scale", 1), "too little to refine camera cam_|most detections of camera cam_"),
    ):
        assert run(*start, *options, *words) == 1
        assert re.search(message, capsys.readouterr().err) and not (folder / "refined").exists()
    text = (folder / "delivered" / "intri.yml").read_text()
    (folder / "delivered" / "intri.yml").write_text(text.replace("W_", "V_"))
    assert run(*start, *options) == 1
    assert "give it with --size" in capsys.readouterr().err


@pytest.mark.parametrize("unit", ["mm", "m"])
def test_a_captures_own_file_keeps_all_but_the_cameras(tmp_path, unit):
    cameras, other = ring(3), [shaken(camera, 9.0, 3.0, k) for k, camera in enumerate(ring(3, distortion=-0.05))]
    keypoints = detected(walk(4), cameras)
    for name in ("capture", "out"):
        (tmp_path / name).mkdir()
    write_annots(tmp_path / "capture", cameras, 4, keypoints.values)
    for source in (tmp_path / "capture", tmp_path / "capture" / "annots.npy"):
        assert write_capture_file(tmp_path / "out", source, other, unit) == tmp_path / "out" / "annots.npy"
        layout = read_layout(tmp_path / "out", unit)
        assert layout.pictures == read_layout(tmp_path / "capture").pictures
        assert layout.keypoints is not None
        np.testing.assert_array_equal(layout.keypoints, keypoints.values)
        for camera, wanted in zip(layout.cameras, other):
            np.testing.assert_allclose(camera.projection(), wanted.projection(), atol=1e-9)
            np.testing.assert_array_equal(camera.distortion, wanted.distortion)
    assert write_capture_file(tmp_path / "out", tmp_path, other, unit) is None


def test_a_neutral_capture_keeps_all_but_the_cameras(tmp_path):
    cameras, other = ring(2), [shaken(camera, 9.0, 3.0, k) for k, camera in enumerate(ring(2))]
    frames = [
        {"file_path": f"{c}/{f}.png", "camera_id": c, "frame_index": f, "note": "kept",
         "transform_matrix": [*cameras[k].pose().tolist(), [0, 0, 0, 1]]}
        for f in range(2) for k, c in enumerate("ab")
    ]  # fmt: skip
    meta = {"fl_x": 800.0, "fl_y": 800.0, "cx": 512.0, "cy": 512.0, "k1": -0.05, "w": SIDE, "h": SIDE, "frames": frames}
    for name in ("capture", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "capture" / "transforms.json").write_text(json.dumps(meta))
    write_capture_file(tmp_path / "out", tmp_path / "capture", other, "mm")
    shutil.rmtree(tmp_path / "capture")
    for camera, wanted in zip(read_neutral(tmp_path / "out").cameras, other):
        np.testing.assert_allclose(camera.projection(), wanted.projection(), atol=1e-6)
        assert camera.distortion[0] == -0.05
    assert all(
        entry["note"] == "kept" for entry in json.loads((tmp_path / "out" / "transforms.json").read_text())["frames"]
    )
