import cv2
import numpy as np
import pytest
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human import capture
from nerfstudio_ext.human.capture import CaptureCamera, CapturedScene


def camera(distortion=(0, 0, 0, 0, 0)):
    calibration = np.array([[50.0, 0, 31.0], [0, 52.0, 25.0], [0, 0, 1]])
    rotation = cv2.Rodrigues(np.array([0.1, -0.2, 0.05]))[0]
    return CaptureCamera(calibration, np.array(distortion, dtype=float), rotation, np.array([0.1, -0.1, 3.0]))


def write(folder, picture, mask, name="000000"):
    for kind, array in (("picture", picture), ("mask", mask)):
        (folder / kind).mkdir(exist_ok=True)
        Image.fromarray(array).save(folder / kind / f"{name}.png")
    return [[folder / "picture" / f"{name}.png"]], [[folder / "mask" / f"{name}.png"]]


def test_projection_is_opencvs():
    points = np.random.default_rng(0).normal(size=(20, 3))
    one = camera()
    theirs, _ = cv2.projectPoints(points, cv2.Rodrigues(one.rotation)[0], one.translation, one.calibration, np.zeros(5))
    np.testing.assert_allclose(one.project(points), theirs[:, 0], atol=1e-9)
    np.testing.assert_allclose(one.local(one.centre()[None]), 0, atol=1e-12)
    behind = one.centre() - one.rotation[2]
    assert np.isnan(one.project(behind[None])).all()


def test_resizing_keeps_the_corners_of_the_picture():
    """A point on a corner of the whole picture stays on the corner: pixel edges scale, not pixel centres."""
    small = camera().resized((64, 52), (32, 13))
    np.testing.assert_allclose(small.calibration[:2, 2] + 0.5, [31.5 / 2, 25.5 / 4])
    np.testing.assert_allclose(np.diag(small.calibration), [25, 13, 1])


def test_distortion_is_taken_out(tmp_path):
    """A dot drawn where the distorted camera sees a point appears where the plain one does; labels are not blended."""
    bent = camera((-0.3, 0.1, 0.002, 0.001, 0.0))
    point = np.array([[1.2, -1.1, 0.4]])
    turn = cv2.Rodrigues(bent.rotation)[0]
    x, y = cv2.projectPoints(point, turn, bent.translation, bent.calibration, bent.distortion)[0][0, 0].round()
    picture, mask = np.zeros((52, 64, 3), np.uint8), np.zeros((52, 64), np.uint8)
    picture[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] = 255
    mask[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] = 13
    scene = CapturedScene([bent], *write(tmp_path, picture, mask), max_side=64)
    view = scene.view(0, 0)
    wanted = bent.project(point)[0]
    rows, columns = np.nonzero(view.mask)
    assert np.abs(np.array([columns.mean(), rows.mean()]) - wanted).max() < 0.8
    assert np.abs(wanted - [x, y]).max() > 0.8, "the distortion is worth taking out"
    assert not view.rgb[~view.mask].any() and view.rgb[view.mask].mean() > 100


def test_pictures_are_shrunk_with_their_camera(tmp_path):
    mask = np.zeros((52, 64), np.uint8)
    mask[10:30, 20:40] = 1
    scene = CapturedScene([camera()], *write(tmp_path, np.full((52, 64, 3), 200, np.uint8), mask), max_side=32)
    view = scene.view(0, 0)
    assert scene.sizes == [(32, 26)] and view.mask.shape == (26, 32)
    assert view.mask.sum() == 100 and view.depth is None
    assert (view.rgb[view.mask] == 200).all()
    assert scene.view(0, 0) is view


def test_bad_files_are_named(tmp_path):
    picture, mask = np.zeros((52, 64, 3), np.uint8), np.zeros((26, 32), np.uint8)
    with pytest.raises(InputError, match=r"mask.*000000\.png is 32x26, but its picture 64x52"):
        CapturedScene([camera()], *write(tmp_path, picture, mask), max_side=64)
    pictures, masks = write(tmp_path, picture, np.ones((52, 64), np.uint8))
    other, _ = write(tmp_path, np.zeros((52, 60, 3), np.uint8), mask, "000001")
    with pytest.raises(InputError, match="60x52, but 000000"):
        CapturedScene([camera()], pictures + other, masks * 2, max_side=64)
    with pytest.raises(InputError, match="There is no"):
        CapturedScene([camera()], [[tmp_path / "gone.png"]], masks, max_side=64)
    noise = np.random.default_rng(0).integers(0, 255, (52, 64, 3), dtype=np.uint8)
    pictures, masks = write(tmp_path, noise, np.ones((52, 64), np.uint8))
    pictures[0][0].write_bytes(pictures[0][0].read_bytes()[:3000])
    with pytest.raises(InputError, match="half copied"):
        CapturedScene([camera()], pictures, masks, max_side=64).view(0, 0)


def test_views_are_kept_within_a_bound(tmp_path, monkeypatch):
    """Room for two views: the one that was not asked for longest is read anew, and is the same."""
    mask = np.ones((52, 64), np.uint8)
    rows = [write(tmp_path, np.full((52, 64, 3), 10 * k, np.uint8), mask, f"{k:06d}") for k in range(3)]
    scene = CapturedScene([camera()], [row[0][0] for row in rows], [row[1][0] for row in rows], max_side=64)
    monkeypatch.setattr(capture, "KEPT_BYTES", 2 * 52 * 64 * 4)
    first, second = scene.view(0, 0), scene.view(1, 0)
    assert scene.view(0, 0) is first
    scene.view(2, 0)
    assert scene.view(0, 0) is first and scene.view(1, 0) is not second
    assert (scene.view(1, 0).rgb == 10).all()
    monkeypatch.setattr(capture, "KEPT_BYTES", 1)
    assert (scene.view(2, 0).rgb == 20).all(), "one view is always kept"
