import math

import numpy as np
import pytest
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human import fit
from nerfstudio_ext.human.body_build import limb_lengths, scaled_body
from nerfstudio_ext.human.fit import _start, fill_out, fit_body
from nerfstudio_ext.human.keypoints import SKELETONS
from nerfstudio_ext.human.skinning import rotation_matrix
from nerfstudio_ext.human.triangulation import Keypoints3D
from nerfstudio_ext.procedural.human import walk

NAMES = SKELETONS["body25b"]


def keypoints(points, names=NAMES):
    points = np.asarray(points, dtype=np.float64)
    return Keypoints3D(points, names, np.full((len(points), 2, points.shape[1]), 1.0))


@pytest.fixture(scope="module")
def person():
    """A tall person who walks, and joints as a detector with BODY_25B would find them."""
    pytest.importorskip("anny")
    from nerfstudio_ext.human.body_model import anny_keypoints

    body = scaled_body({"height": 0.7, "gender": 0.8, "weight": 0.5}, 1.03)
    motion = walk(body, 6, 100.0)
    weights = anny_keypoints()
    joints = [weights[n] @ motion.vertices if n in weights else torch.full((6, 3), torch.nan) for n in NAMES]
    return body, motion, torch.stack(joints, dim=1).numpy()


def test_limbs_are_measured_on_both_sides():
    points = {"left_hip": np.zeros((3, 3)), "left_knee": np.full((3, 3), 0.3), "right_hip": np.zeros((3, 3))}
    points["right_knee"] = np.array([[0.5, 0, 0], [0.5, 0, 0], [np.nan, 0, 0]])
    lengths = limb_lengths(points)
    assert lengths == {"hip-knee": pytest.approx(math.sqrt(0.27)), "hip width": 0.0}


def test_the_start_is_the_rigid_motion_that_was_made():
    torch.manual_seed(0)
    rest = torch.randn(8, 3)
    turn = torch.tensor([[0.0, 0.0, 3.0], [0.0, 0.0, 3.3], [0.1, 0.2, 0.3]])
    shift = torch.randn(3, 3)
    seen = torch.ones(3, 8, dtype=torch.bool)
    seen[2] = False
    target = rest @ rotation_matrix(turn).transpose(1, 2) + shift[:, None]
    roots, shifts = _start(rest, target, seen)
    torch.testing.assert_close(roots[:2], turn[:2], rtol=0, atol=1e-4)
    torch.testing.assert_close(shifts[:2], shift[:2], rtol=0, atol=1e-4)
    torch.testing.assert_close(roots[2], roots[1], msg="a frame without joints follows its neighbour")


@pytest.mark.extra("anny")
@pytest.mark.slow
def test_a_walking_person_is_found_again(person, monkeypatch):
    body, motion, joints = person
    seen = joints.copy()
    seen[2, 7] = np.nan
    seen[4, 15] += [0.6, 0.0, 0.0]
    bars = []
    monkeypatch.setattr(fit, "track", lambda steps, label, **options: bars.append((len(steps), label)) or steps)
    fitted = fit_body(keypoints(seen), {"weight": 0.5}, steps=200)
    assert bars == [(200, "Fitting the body")], "it says how far it is"
    assert float(fitted.error.nanmedian()) < 0.02
    assert bool(torch.isnan(fitted.error[2]).any())
    heights = [float(np.ptp(b.rest_vertices[:, 2].numpy())) for b in (fitted.body, body)]
    assert heights[0] == pytest.approx(heights[1], abs=0.06)
    # Everything between the joints follows, and a wrong ankle pulls the leg hardly at all.
    apart = (fitted.motion.vertices - motion.vertices).norm(dim=-1)
    assert float(apart.mean()) < 0.05 and float(apart[4].mean()) < 0.06
    assert "m tall" in fitted.report()
    assert fitted.motion.build == fitted.build and fitted.build.phenotype["weight"] == 0.5


@pytest.mark.extra("anny")
@pytest.mark.slow
def test_the_error_is_that_of_the_body_that_comes_out(person, monkeypatch):
    """Silhouettes choose a weight, which moves the surface that the key points lie in."""
    from nerfstudio_ext.human.body_model import anny_keypoints

    joints = person[2][:2]
    fitted = fit_body(keypoints(joints), {}, steps=60)
    answers = iter([0.2, 0.9])
    monkeypatch.setattr(fit, "coarse_overlap", lambda *rest: next(answers))
    filled = fill_out(fitted, keypoints(joints), [None], [[None]], [0], candidates=(0.5, 0.95))
    assert filled.build.phenotype["weight"] == 0.95 and filled.motion.build == filled.build
    weights = anny_keypoints()
    for column, name in enumerate(name for name in NAMES if name in weights):
        found = (weights[name] @ filled.motion.vertices).numpy()
        wanted = np.linalg.norm(found - joints[:, NAMES.index(name)], axis=-1)
        np.testing.assert_allclose(filled.error[:, column].numpy(), wanted, atol=2e-4)
    assert float(filled.error.nanmedian()) < 0.03


@pytest.mark.extra("anny")
@pytest.mark.slow
def test_what_is_no_person_is_refused(person):
    _, _, joints = person
    with pytest.raises(InputError, match="another unit"):
        fit_body(keypoints(100 * joints))
    with pytest.raises(InputError, match="Only 5 of the body's joints"):
        fit_body(keypoints(joints[:, 5:10], NAMES[5:10]))
    with pytest.raises(InputError, match="Too few limbs"):
        fit_body(keypoints(joints[:, [0, 1, 2, 5, 6, 19, 22]], tuple(NAMES[k] for k in (0, 1, 2, 5, 6, 19, 22))))
