"""Scores of surfaces against balls and boxes, whose distances are known."""

import numpy as np
import pytest
import trimesh

from nerfstudio_ext.surface.person_scores import mean_scores, person_scores

pytestmark = pytest.mark.extra("embreex")


def ball(radius: float, *inner: float):
    mesh = trimesh.util.concatenate([trimesh.creation.icosphere(4, r) for r in (radius, *inner)])
    return np.array(mesh.vertices), np.array(mesh.faces)


def test_the_truth_scores_zero_and_what_it_encloses_does_not_count():
    found = person_scores(*ball(0.9), *ball(0.9, 0.3))
    assert found.chamfer_cm < 0.01 + found.p2s_cm and found.p2s_cm < 0.01 and found.nc < 1e-3


def test_a_larger_ball_is_as_far_as_its_radius_and_looks_alike_but_at_its_rim():
    found = person_scores(*ball(0.95), *ball(0.9))
    assert found.chamfer_cm == pytest.approx(5, abs=0.05) and found.p2s_cm == pytest.approx(5, abs=0.05)
    # Two radii are 1.80 m, which the published unit calls 180 / 1.024.
    assert found.chamfer_official == pytest.approx(5 / 1.024, abs=0.05)
    assert 0.01 < found.nc < 0.5


def test_half_a_person_is_far_from_the_truth_but_not_the_other_way_round():
    verts, faces = ball(0.9)
    low = trimesh.Trimesh(verts, faces).slice_plane([0, 0, 0], [0, 0, -1], cap=True)
    found = person_scores(np.array(low.vertices), np.array(low.faces), verts, faces)
    assert found.p2s_cm > 15 and found.nc > 0.3
    means = mean_scores([found, found])
    assert means == pytest.approx(found.as_dict())
