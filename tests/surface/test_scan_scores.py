"""A mesh against a scan by DTU's protocol, beside plain loops, and on bodies whose distance is known."""

import numpy as np
import pytest
import trimesh
from scipy.io import savemat
from scipy.spatial import KDTree

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.surface.mesh import Mesh
from nerfstudio_ext.surface.scan_scores import dense_points, read_observed_volume, scan_scores, thinned


def ball(radius=10.0):
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return Mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces))


def cloud(mesh, spacing=0.5, seed=0):
    return thinned(dense_points(mesh, spacing, seed), spacing, seed)


@pytest.fixture
def volume(tmp_path):
    """A cube of half side 12 about the origin in voxels of 1, seen where x > 0, above a table at z = -5."""
    seen = np.zeros((25, 25, 25), np.uint8)
    seen[13:] = 1
    savemat(tmp_path / "ObsMask1_10.mat", {"ObsMask": seen, "BB": np.array([[-12.0] * 3, [12.0] * 3]), "Res": 1.0})
    savemat(tmp_path / "Plane1.mat", {"P": np.array([[0.0], [0], [1], [5]])})
    return read_observed_volume(tmp_path / "ObsMask1_10.mat", tmp_path / "Plane1.mat")


def test_thinning_is_that_of_a_loop():
    points = np.random.default_rng(3).random((300, 3))
    kept = thinned(points, 0.2, seed=1)
    loop = []
    for point in points[np.random.default_rng(1).permutation(300)]:
        if all(np.linalg.norm(point - other) > 0.2 for other in loop):
            loop.append(point)
    np.testing.assert_array_equal(kept, loop)


def test_thinned_points_leave_no_gap():
    points = cloud(ball())
    assert KDTree(points).query(points, k=2)[0][:, 1].min() > 0.5
    gaps = KDTree(points).query(dense_points(ball(), 0.5, seed=9))[0]
    assert np.quantile(gaps, 0.999) < 1.0


def test_distances_of_two_balls():
    scores = scan_scores(cloud(ball(11)), cloud(ball(10), seed=1), threshold=1.5)
    assert scores["accuracy"] == pytest.approx(1, abs=0.08) and scores["completeness"] == pytest.approx(1, abs=0.08)
    assert scores["chamfer"] == (scores["accuracy"] + scores["completeness"]) / 2
    assert scores["f_score"] == 1 and scores["left_out_ours"] == scores["left_out_scan"] == 0


def test_what_is_too_far_is_left_out():
    far = np.array([[30.0, 0, 0], [31.0, 0, 0]])
    scores = scan_scores(np.concatenate([cloud(ball(11)), far]), cloud(ball(10), seed=1), farthest=5.0)
    assert scores["accuracy"] < 1.1 and scores["completeness"] < 1.1
    assert 0 < scores["left_out_ours"] < 0.01 and scores["left_out_scan"] == 0
    with pytest.raises(InputError, match="No point is within 5 of the other surface; the nearest is"):
        scan_scores(far, cloud(ball()), farthest=5.0)


def test_observed_volume_and_table(volume):
    """What stands beside or behind the observed half of a ball costs nothing there, but in front it does; what is
    missing of the scan costs above the table alone."""
    ours, scan = cloud(ball(10)), cloud(ball(10), seed=1)
    right = scan_scores(ours, scan, volume, 20.0)
    assert right["chamfer"] < 0.3
    unseen = np.random.default_rng(0).uniform([-11, -5, -5], [-1, 5, 5], (2000, 3))
    assert scan_scores(np.concatenate([ours, unseen]), scan, volume, 20.0)["accuracy"] == right["accuracy"]
    assert (
        scan_scores(np.concatenate([ours, unseen + [12, 0, 0]]), scan, volume, 20.0)["accuracy"] > 2 * right["accuracy"]
    )
    lower = np.random.default_rng(0).uniform([-20, -20, -7], [20, 20, -6], (2000, 3))
    assert scan_scores(ours, np.concatenate([scan, lower]), volume, 20.0)["completeness"] == right["completeness"]
    assert (
        scan_scores(ours, np.concatenate([scan, lower + [0, 0, 6]]), volume, 20.0)["completeness"]
        > 2 * right["completeness"]
    )
    with pytest.raises(InputError, match="Nothing of the mesh lies where the scan was observed"):
        scan_scores(ours - [30, 0, 0], scan, volume)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"BB": np.zeros((2, 3)), "Res": 1.0}, "holds no ObsMask: give the file"),
        ({"ObsMask": np.zeros((3, 3)), "BB": np.zeros((2, 3)), "Res": 1.0}, "are not DTU's"),
        (None, "cannot be read as a .mat file"),
    ],
)
def test_other_files_than_dtus(tmp_path, content, message):
    path = tmp_path / "ObsMask1_10.mat"
    path.write_bytes(b"no such thing") if content is None else savemat(path, content)
    with pytest.raises(InputError, match=message):
        read_observed_volume(path, None)
    with pytest.raises(InputError, match="There is no file"):
        read_observed_volume(tmp_path / "gone.mat", None)


def test_too_small_a_spacing_is_refused():
    with pytest.raises(InputError, match=r"would be 2,5.*: give a larger --spacing, as 0\.05"):
        dense_points(ball(), 0.001)
