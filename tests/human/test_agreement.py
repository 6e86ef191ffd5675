import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import Delaunay

from nerfstudio_ext.human.agreement import (
    SUSPICIONS,
    agreement,
    best_shift,
    coarse_overlap,
    explain,
    on_person,
    overlay,
    silhouette,
)
from nerfstudio_ext.human.capture import CaptureCamera
from nerfstudio_ext.procedural.rigs import rig_poses

SIZE = (96, 80)


def cameras(count=4):
    found = []
    for k, pose in enumerate(rig_poses("ring", count, 3.0).double().numpy()):
        rotation = (pose[:, :3] * [1, -1, -1]).T
        # Away from the middle, so that a camera's own position says which way it looks.
        centre = pose[:, 3] + [0.4, 0.1 * k, 0.3]
        calibration = np.array([[90.0, 0, 47.5], [0, 90.0, 39.5], [0, 0, 1]])
        found.append(CaptureCamera(calibration, np.zeros(5), rotation, -rotation @ centre))
    return found


def box():
    """A wide, flat, tall box with an arm to one side: no two views of it are alike."""
    corners = np.array([[x, y, z] for x in (-0.3, 0.5) for y in (-0.1, 0.1) for z in (-0.8, 0.7)])
    random = np.random.default_rng(0)
    inside = random.uniform(corners.min(0), corners.max(0), (1500, 3))
    arm = random.uniform([0.0, 0.1, 0.3], [0.1, 0.8, 0.5], (400, 3))
    faces = np.array([[0, 1, 3], [0, 3, 2], [4, 5, 7], [4, 7, 6], [0, 1, 5], [0, 5, 4], [2, 3, 7], [2, 7, 6],
                      [0, 2, 6], [0, 6, 4], [1, 3, 7], [1, 7, 5]])  # fmt: skip
    return np.concatenate([corners, inside, arm]), faces


def test_a_silhouette_covers_its_vertices_and_nothing_else():
    vertices, faces = box()
    vertices = vertices[:8]
    camera = cameras()[0]
    drawn = silhouette(camera, vertices, faces, SIZE)
    # Against rays of the naive kind: a pixel is covered where it lies in the convex hull of the projected corners.
    grid = np.stack(np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1])), axis=-1)
    hull = Delaunay(camera.project(vertices)).find_simplex(grid.reshape(-1, 2)).reshape(SIZE[::-1]) >= 0
    # Pixels that an edge merely touches are drawn as well.
    touched = ndimage.binary_dilation(hull, np.ones((3, 3)))
    assert hull.sum() > 200 and not (hull & ~drawn).any() and not (drawn & ~touched).any()


def test_agreement_is_whole_with_itself_and_none_beside():
    vertices, faces = box()
    camera = cameras()[1]
    mask = silhouette(camera, vertices, np.zeros((0, 3), int), SIZE)
    same = agreement(camera, vertices, np.zeros((0, 3), int), mask)
    assert same.iou == 1.0 and same.in_mask > 0.98 and same.in_picture == 1.0
    beside = agreement(camera, vertices + [0, 0, 5.0], faces, mask)
    assert beside.iou == 0.0 and beside.in_picture < 0.2
    assert on_person(camera, vertices, ~mask)[1] < 0.02
    assert coarse_overlap(camera, vertices, mask) > 0.8


def test_an_overlay_changes_the_body_alone():
    vertices, faces = box()
    camera = cameras()[0]
    picture = np.full((*SIZE[::-1], 3), 90, np.uint8)
    drawn = overlay(picture, camera, vertices[:8], faces)
    changed = (drawn != 90).any(-1)
    assert (changed == silhouette(camera, vertices[:8], faces, SIZE)).mean() > 0.97
    assert (picture == 90).all()


def spoiled(what, one):
    """A camera and vertices as the mistake leaves them: what the suspicion would undo."""
    if what == "T is in metres and was read as millimetres":
        return CaptureCamera(one.calibration, one.distortion, one.rotation, one.translation / 1000)
    if what == "T is in millimetres and was read as metres":
        return CaptureCamera(one.calibration, one.distortion, one.rotation, one.translation * 1000)
    if what == "T is in centimetres":
        return CaptureCamera(one.calibration, one.distortion, one.rotation, one.translation / 10)
    if what == "R and T lead from the camera to the world":
        return CaptureCamera(one.calibration, one.distortion, one.rotation.T, one.centre())
    if what == "T is where the camera stands":
        return CaptureCamera(one.calibration, one.distortion, one.rotation, one.centre())
    flip = np.array([1.0, -1, -1])
    return CaptureCamera(one.calibration, one.distortion, flip[:, None] * one.rotation, flip * one.translation)


@pytest.mark.parametrize("what", [name for name in SUSPICIONS if "vertices" not in name])
def test_mistakes_in_cameras_are_told_apart(what):
    vertices, _ = box()
    right = cameras()
    masks = [silhouette(camera, vertices, np.zeros((0, 3), int), SIZE) for camera in right]
    assert explain(right, vertices, masks) is None
    assert explain([spoiled(what, camera) for camera in right], vertices, masks) == what


def test_other_mistakes_are_told_apart():
    vertices, _ = box()
    right = cameras()
    masks = [silhouette(camera, vertices, np.zeros((0, 3), int), SIZE) for camera in right]
    assert "y up" in (explain(right, vertices[:, [0, 2, 1]] * [1, 1, -1], masks) or "")
    order = explain(right[1:] + right[:1], vertices, masks)
    assert order is not None and order.startswith("the cameras are in another order: 1 sees what 0 should")
    assert "inverted" in (explain(right, vertices, [~mask for mask in masks]) or "")


@pytest.mark.parametrize("shift", [(0.16, 0.0, 0.0), (0.0, -0.12, 0.0), (0.02, 0.0, 0.3), (-0.2, 0.2, -0.28)])
def test_a_displaced_body_is_told_with_its_shift(shift):
    vertices, _ = box()
    right = cameras()
    masks = [silhouette(camera, vertices, np.zeros((0, 3), int), SIZE) for camera in right]
    found, share = best_shift(right, vertices + shift, masks)
    np.testing.assert_allclose(found, -np.array(shift), atol=0.05)  # a square of the comparison is 8 cm
    assert share > 0.75
    told = explain(right, vertices + shift, masks) or ""
    assert f"{100 * np.linalg.norm(found):.0f} cm from where it is (x {100 * found[0]:+.0f}, " in told
    assert "--convention" in told


def test_what_a_body_does_not_show_is_no_shift():
    """Wide clothes, hidden legs, and small errors of a fit are not taken for a body that stands elsewhere."""
    vertices, _ = box()
    right = cameras()
    masks = [silhouette(camera, vertices, np.zeros((0, 3), int), SIZE) for camera in right]
    dressed = [ndimage.binary_dilation(mask, iterations=3) for mask in masks]
    hidden = [mask & (np.arange(SIZE[1]) < 0.5 * SIZE[1])[:, None] for mask in masks]
    for seen in (masks, dressed, hidden):
        assert explain(right, vertices, seen) is None
    assert explain(right, vertices + [0.03, 0.0, 0.03], masks) is None
