from dataclasses import replace

import numpy as np
import pytest

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.camera_refinement import hold_out, refine
from nerfstudio_ext.human.keypoints import Keypoints2D
from tests.human.rig import SIDE, apart, detected, ring, shaken, walk

NAMES = ("a", "b", "c", "d")


def test_a_shaken_rig_finds_back_among_wrong_detections():
    """Each camera 4 cm and 2 degrees off, half a pixel of noise, every tenth detection anywhere."""
    truth = ring(distortion=-0.05)
    delivered = [shaken(camera, 4.0, 2.0, k) for k, camera in enumerate(truth)]
    keypoints = detected(walk(), truth, noise=0.5, wrong=0.1)
    found = refine(keypoints, delivered, NAMES, SIDE)
    old, new = found.held_out_error()
    assert old > 8 and new < 1.0
    assert apart(delivered, truth)[0] > 0.02
    metres, degrees, scale, moved = apart(found.cameras, truth)
    assert metres < 0.003 and degrees < 0.06
    # The rig's place and scale are the delivered ones' on the whole, which are off by a few centimetres themselves.
    assert abs(scale - 1) < 0.02 and moved.max() < 0.05
    for camera, was in zip(found.cameras, delivered):
        np.testing.assert_array_equal(camera.calibration, was.calibration)
        np.testing.assert_array_equal(camera.distortion, was.distortion)
        np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)
    table = found.report(NAMES).splitlines()
    assert len(table) == 6 and f"{old:.1f} -> {new:.1f}" in table[-1] and "deg" in table[1]


def test_a_camera_that_was_knocked_over_does_not_draw_the_others_along():
    truth = ring(5)
    delivered = [shaken(truth[0], 25.0, 4.0, 3), *truth[1:]]
    found = refine(detected(walk(), truth), delivered, "abcde", SIDE)
    metres, degrees, scale, moved = apart(found.cameras, truth)
    assert metres < 0.003 and degrees < 0.06 and abs(scale - 1) < 0.002
    assert moved.max() < 0.006, "in the delivered frame, without any alignment"


def test_focal_lengths_are_found_where_asked():
    truth = ring()
    wide = np.diag([0.96, 0.96, 1.0])
    kept = truth[1].calibration.copy()
    kept[:2, :2] = (wide @ kept)[:2, :2]
    delivered = [truth[0], replace(truth[1], calibration=kept), *truth[2:]]
    keypoints = detected(walk(), truth, noise=0.3)
    zoomed = refine(keypoints, delivered, NAMES, SIDE, focal=True)
    ratios = [camera.calibration[0, 0] / 800.0 for camera in zoomed.cameras]
    assert max(ratios) - min(ratios) < 0.01, "from 0.04"
    np.testing.assert_array_equal(zoomed.cameras[1].calibration[:, 2], kept[:, 2])
    fixed = refine(keypoints, delivered, NAMES, SIDE)
    assert zoomed.held_out_error()[1] < fixed.held_out_error()[1]


def test_two_cameras_suffice():
    truth = ring(5)[:2]
    delivered = [truth[0], shaken(truth[1], 4.0, 2.0, 0)]
    old, new = refine(detected(walk(), truth), delivered, NAMES[:2], SIDE).held_out_error()
    assert new < 0.7 < 3 < old


def test_held_out_frames_have_no_part():
    """What happens in them changes nothing."""
    truth = ring()
    delivered = [shaken(camera, 4.0, 2.0, k) for k, camera in enumerate(truth)]
    keypoints = detected(walk(), truth)
    other = keypoints.values.copy()
    held = hold_out(len(other))
    assert 0.15 < held.mean() < 0.3 and all(0 < hold_out(n).sum() < n / 2 for n in (5, 7, 60, 333))
    other[held, ..., :2] += 3.0 * np.random.default_rng(2).normal(size=other[held, ..., :2].shape)
    one, two = (refine(some, delivered, NAMES, SIDE) for some in (keypoints, Keypoints2D(other, keypoints.names)))
    for a, b in zip(one.cameras, two.cameras):
        np.testing.assert_array_equal(a.projection(), b.projection())
    assert two.held_out_error()[1] > 2 * one.held_out_error()[1]


def test_what_is_good_already_is_kept():
    truth = ring()
    with pytest.raises(InputError, match=r"Nothing is gained.*keep the one you have"):
        refine(detected(walk(), truth), truth, NAMES, SIDE)


def test_too_little_is_refused():
    truth, points = ring(), walk()
    delivered = [shaken(camera, 4.0, 2.0, k) for k, camera in enumerate(truth)]
    keypoints = detected(points, truth)
    with pytest.raises(InputError, match="has 1 cameras and the calibration 1"):
        refine(Keypoints2D(keypoints.values[:, :1], keypoints.names), delivered[:1], NAMES[:1], SIDE)
    with pytest.raises(InputError, match="4 cameras and the calibration 3"):
        refine(keypoints, delivered[:3], NAMES[:3], SIDE)
    with pytest.raises(InputError, match="has 4 frames: at least 5"):
        refine(Keypoints2D(keypoints.values[:4], keypoints.names), delivered, NAMES, SIDE)
    alone = keypoints.values.copy()
    alone[:, 2, 2:, 2] = 0.0
    with pytest.raises(InputError, match=r"too little to refine camera c by: .* detections agree"):
        refine(Keypoints2D(alone, keypoints.names), delivered, NAMES, SIDE)
    with pytest.raises(InputError, match="order of the cameras"):
        refine(keypoints, [delivered[k] for k in (1, 0, 2, 3)], NAMES, SIDE)
    stranger = keypoints.values.copy()
    some = np.random.default_rng(0).random(stranger[:, 3].shape[:2]) < 0.7
    stranger[:, 3, :, :2] = np.where(some[..., None], SIDE - stranger[:, 3, :, :2], stranger[:, 3, :, :2])
    with pytest.raises(InputError, match="most detections of camera d lie more than 2%"):
        refine(Keypoints2D(stranger, keypoints.names), delivered, NAMES, SIDE)
    standing = detected(np.repeat(points[:1], 20, axis=0), truth)
    with pytest.raises(InputError, match="hardly moves"):
        refine(standing, delivered, NAMES, SIDE)
