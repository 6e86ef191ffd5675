import numpy as np
import pytest

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.capture import CaptureCamera
from nerfstudio_ext.human.keypoints import SKELETONS, Keypoints2D
from nerfstudio_ext.human.triangulation import triangulate
from nerfstudio_ext.human.zju_layout import read_layout
from nerfstudio_ext.procedural.rigs import rig_poses

FRAMES, JOINTS = 4, 17


def ring(count):
    cameras = []
    for pose in rig_poses("ring", count, 3.0).double().numpy():
        rotation = (pose[:, :3] * [1, -1, -1]).T
        calibration = np.array([[400.0, 0, 255.5], [0, 400.0, 255.5], [0, 0, 1]])
        cameras.append(CaptureCamera(calibration, np.zeros(5), rotation, -rotation @ pose[:, 3]))
    return cameras


def scene(count=4, noise=0.0):
    random = np.random.default_rng(1)
    points = random.uniform(-0.6, 0.6, (FRAMES, JOINTS, 3))
    cameras = ring(count)
    pixels = np.stack([camera.project(points) for camera in cameras], axis=1)
    pixels = pixels + noise * random.normal(size=pixels.shape)
    values = np.concatenate([pixels, np.full((*pixels.shape[:-1], 1), 0.8)], axis=-1)
    return points, cameras, Keypoints2D(values, SKELETONS["coco17"])


def test_exact_views_give_exact_points():
    points, cameras, keypoints = scene()
    found = triangulate(keypoints, cameras, 5.0)
    np.testing.assert_allclose(found.points, points, atol=1e-6)
    assert found.error.shape == (FRAMES, 4, JOINTS) and np.nanmax(found.error) < 1e-3
    assert found.seen.all() and "100% of 68 joints found, from 4.0 views" in found.report()


def test_noise_is_averaged():
    points, cameras, keypoints = scene(8, noise=1.0)
    found = triangulate(keypoints, cameras, 10.0)
    distance = np.linalg.norm(found.points - points, axis=-1)
    # One pixel is 7.5 mm at 3 m; eight views know better.
    assert np.median(distance) < 0.006 and 0.5 < np.nanmedian(found.error) < 2


def test_one_wrong_view_is_left_out():
    points, cameras, keypoints = scene()
    keypoints.values[:, 2, ::2, :2] += 60.0
    found = triangulate(keypoints, cameras, 5.0)
    np.testing.assert_allclose(found.points, points, atol=1e-6)
    assert np.isnan(found.error[:, 2, ::2]).all() and np.isfinite(found.error[:, 2, 1::2]).all()


def test_what_two_views_do_not_see_is_no_point():
    _, cameras, keypoints = scene()
    keypoints.values[0, 1:, 3, 2] = 0.0
    keypoints.values[1, 1:, 4, 2] = 0.1
    found = triangulate(keypoints, cameras, 5.0)
    assert not found.seen[0, 3] and not found.seen[1, 4] and found.seen.sum() == FRAMES * JOINTS - 2


def test_disagreement_everywhere_is_no_point():
    _, cameras, keypoints = scene(2)
    keypoints.values[..., :2] = np.random.default_rng(3).uniform(0, 512, keypoints.values[..., :2].shape)
    found = triangulate(keypoints, cameras, 0.5)
    assert found.seen.mean() < 0.1


def test_cameras_must_fit():
    _, cameras, keypoints = scene()
    with pytest.raises(InputError, match="4 cameras and 3 calibrations"):
        triangulate(keypoints, cameras[:3], 5.0)


def test_a_real_recording(shared_data):
    """Four cameras of weak calibration: the joints come out where the recording's own solution has them."""
    folder = shared_data / "human_pose2sim" / "zju_layout"
    layout = read_layout(folder)
    assert layout.keypoints is not None and layout.keypoints.shape == (12, 4, 25, 3)
    found = triangulate(Keypoints2D(layout.keypoints, SKELETONS["body25b"]), layout.cameras, 20.0)
    theirs = np.load(folder / "kpts3d.npy")
    both = found.seen & np.isfinite(theirs).all(-1)
    assert both.sum() > 200
    distance = np.linalg.norm(found.points - theirs, axis=-1)[both]
    assert np.median(distance) < 0.03
    assert 1.0 < np.nanmedian(found.error) < 6.0, "3.7 pixels at half size, as the data's own text says"
