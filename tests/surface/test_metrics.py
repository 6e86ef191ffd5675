import numpy as np
import trimesh

from nerfstudio_ext.surface.metrics import compare_surfaces, sample_mesh


def ball(radius, count=3000, seed=0):
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return sample_mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces), count, seed)


def test_samples_are_even_and_on_the_mesh():
    points, normals = ball(0.7)
    assert np.abs(np.linalg.norm(points, axis=1) - 0.7).max() < 0.003
    assert np.abs(points.mean(0)).max() < 0.03
    assert ((points / 0.7 * normals).sum(1) > 0.99).all()


def test_two_balls_are_apart_by_the_difference_of_their_radii():
    scores = compare_surfaces(*ball(0.7), *ball(0.6, seed=1), threshold=0.05)
    assert 0.098 < scores.accuracy < 0.106 and 0.098 < scores.completeness < 0.106
    assert scores.chamfer == (scores.accuracy + scores.completeness) / 2
    assert scores.f_score == 0 and scores.normal_consistency > 0.99


def test_distances_against_a_loop():
    ours, theirs = ball(0.7, 60), ball(0.65, 50, seed=1)
    scores = compare_surfaces(*ours, *theirs, threshold=0.1, max_distance=0.12)
    forth = np.array([np.linalg.norm(theirs[0] - p, axis=1).min() for p in ours[0]])
    back = np.array([np.linalg.norm(ours[0] - p, axis=1).min() for p in theirs[0]])
    assert np.isclose(scores.accuracy, forth[forth <= 0.12].mean())
    assert np.isclose(scores.completeness, back[back <= 0.12].mean())
    precision, recall = (forth < 0.1).mean(), (back < 0.1).mean()
    assert np.isclose(scores.f_score, 2 * precision * recall / (precision + recall))
