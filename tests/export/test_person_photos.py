import json

import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.person_photos import SHEET_HEIGHT, write_moment
from nerfstudio_ext.human.capture import CaptureCamera, CapturedScene
from nerfstudio_ext.human.photos import PhotoStore
from nerfstudio_ext.human.subject import SourceViews

NAMES = ("left_hand", "right_hand", "head", "pelvis")
KEYPOINTS = torch.tensor([[0.3, 0.0, 0.0], [-0.3, 0.0, 0.0], [0.0, 0.0, 0.4], [0.0, 0.0, 0.0]])
SIZES = ((80, 96), (72, 96))
"""Two cameras that differ in width."""


def cameras():
    """One looks along -y, the other along +y, world up is +z, three metres away."""
    found = []
    for (width, height), sign in zip(SIZES, (1.0, -1.0)):
        calibration = np.array([[150.0, 0, width / 2 - 0.5], [0, 150.0, height / 2 - 0.5], [0, 0, 1]])
        rotation = np.array([[sign, 0, 0], [0, 0, -1.0], [0, sign, 0]])
        found.append(CaptureCamera(calibration, np.zeros(5), rotation, np.array([0.0, 0.0, 3.0])))
    return found


@pytest.fixture
def scene(tmp_path):
    """A person who is a disc of half a metre, a bystander in the corner, the column as colour."""
    files = {"picture": [], "mask": []}
    for k, (width, height) in enumerate(SIZES):
        rows, columns = np.mgrid[:height, :width]
        disc = np.hypot(rows - height / 2, columns - width / 2) < 26
        disc[:6, :6] = True
        arrays = {"picture": np.stack([2 * columns, 2 * rows, 0 * rows], -1), "mask": 255 * disc}
        for kind, array in arrays.items():
            path = tmp_path / f"{kind}{k}.png"
            Image.fromarray(array.astype(np.uint8)).save(path)
            files[kind].append(path)
    return CapturedScene(cameras(), [files["picture"]], [files["mask"]], 1000)


def test_what_is_written_is_what_the_cameras_saw(scene, tmp_path):
    folder = tmp_path / "out"
    write_moment(scene, 0, KEYPOINTS, NAMES, folder)
    subject = PhotoStore(folder, 48, NAMES).subject(0)
    torch.testing.assert_close(subject.keypoints, KEYPOINTS)
    views = SourceViews.of(subject, (0, 1), torch.device("cpu"))
    pixels, depth = views.project(KEYPOINTS)
    torch.testing.assert_close(depth, torch.full((2, 4), 3.0))
    for k, camera in enumerate(scene.cameras):
        wanted = camera.project(KEYPOINTS.double().numpy())
        for point, (column, row) in zip(pixels[k], wanted):
            red, green = subject.rgb[k, int(point[1]), int(point[0]), :2].tolist()
            # The colour tells which pixel of the recording it was, up to one pixel of the smaller picture.
            assert red / 2 == pytest.approx(column, abs=1.5) and green / 2 == pytest.approx(row, abs=1.5)
    with Image.open(folder / "overlay.jpg") as sheet:
        assert sheet.size == (2 * SHEET_HEIGHT, SHEET_HEIGHT)


def test_bystanders_leave_the_mask_and_cameras_one_size(scene, tmp_path):
    write_moment(scene, 0, KEYPOINTS, NAMES, tmp_path / "out")
    masks = [np.asarray(Image.open(tmp_path / "out" / "masks" / f"{k:02d}.png")) for k in range(2)]
    assert masks[0].shape == masks[1].shape == (96, 80)
    assert not masks[0][:6, :6].any() and masks[0][48, 40]
    assert not masks[1][:, 72:].any()
    meta = json.loads((tmp_path / "out" / "transforms.json").read_text())
    assert [frame["cx"] for frame in meta["frames"]] == [40.0, 36.0]


def test_nobody_in_the_mask_is_told_by_the_reader(scene, tmp_path):
    write_moment(scene, 0, KEYPOINTS + torch.tensor([2.0, 0.0, 0.0]), NAMES, tmp_path / "out")
    with pytest.raises(InputError, match="is empty"):
        PhotoStore(tmp_path / "out", 48, NAMES)
