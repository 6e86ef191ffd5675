from dataclasses import replace

import pytest
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_build import scaled_body
from nerfstudio_ext.human.body_motion import Build
from nerfstudio_ext.procedural.human import PHENOTYPE, walk
from nerfstudio_ext.procedural.new_poses import stride, walk_like

pytestmark = [pytest.mark.extra("anny"), pytest.mark.slow]
BUILD = Build({"height": 0.8, "weight": 0.9}, 1.1)


def height(vertices):
    return float(vertices[:, 2].max() - vertices[:, 2].min())


def test_the_walk_is_that_of_the_build():
    body = scaled_body(BUILD.phenotype, BUILD.size)
    like = replace(walk(body, 2, 0.0), build=BUILD)
    walked = walk_like(like, "it", 3, 0.0)
    torch.testing.assert_close(walked.rest, body.rest_vertices)
    assert walked.build == BUILD and len(walked.vertices) == 3
    drawn = height(scaled_body(PHENOTYPE, 1.0).rest_vertices)
    assert height(walked.vertices[0]) == pytest.approx(height(like.vertices[0]), rel=0.02)
    assert height(walked.vertices[0]) > 1.05 * drawn


def test_a_build_that_nobody_noted_is_asked_for():
    """Without it only the drawn person is known, by how it rests."""
    other = walk(scaled_body(BUILD.phenotype, BUILD.size), 2, 0.0)
    for like in (other, replace(other, rest=None)):
        with pytest.raises(InputError, match="does not say which build"):
            walk_like(like, "it", 3, 0.0)
    drawn = scaled_body(PHENOTYPE, 1.0)
    torch.testing.assert_close(walk_like(walk(drawn, 2, 0.0), "it", 3, 0.0).rest, drawn.rest_vertices)
    with pytest.raises(InputError, match="it has 7 vertices"):
        walk_like(replace(other, vertices=other.vertices[:, :7], rest=None), "it", 3, 0.0)


def test_the_stride_is_none_of_the_drawn_poses():
    """Arms hang beside the body instead of rising, and either foot is before the other once."""
    body = scaled_body(PHENOTYPE, 1.0)
    drawn, strode = walk(body, 8, 0.0).vertices, stride(body, 8, 0.0).vertices
    width = [float(v[:, :, 0].amax(1).max() - v[:, :, 0].amin(1).min()) for v in (drawn, strode)]
    assert width[1] < 0.6 * width[0]
    apart = (strode[:, None] - drawn[None]).norm(dim=-1).mean(-1)
    assert float(apart.min()) > 0.05, "metres"
    feet = [body.rest_vertices[:, 2].lt(body.rest_vertices[:, 2].min() + 0.1) & side for side in _sides(body)]
    ahead = strode[:, feet[0], 1].mean(1) - strode[:, feet[1], 1].mean(1)
    assert float(ahead.min()) < -0.3 and float(ahead.max()) > 0.3


def _sides(body):
    return body.rest_vertices[:, 0] > 0, body.rest_vertices[:, 0] < 0
