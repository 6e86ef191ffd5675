"""Close-ups of drawn faces: exact, in the frame, with keypoints that move with the expression."""

import numpy as np
import pytest
import torch
import trimesh

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_model import FACE_SHAPES, anny_face
from nerfstudio_ext.human.keypoint_encoding import keypoint_box
from nerfstudio_ext.human.subject import SourceViews
from nerfstudio_ext.procedural.face import FACE_KEYPOINTS, IN_THE_MIDDLE, ON_BOTH_SIDES
from nerfstudio_ext.procedural.people import PeopleOptions, ProceduralPeople
from nerfstudio_ext.procedural.scans import ProceduralScans, ScanOptions

OPTIONS = PeopleOptions(cameras=4, size=64, subjects="faces")
pytestmark = [pytest.mark.extra("anny"), pytest.mark.extra("embreex"), pytest.mark.slow]


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NERFSTUDIO_EXT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield ProceduralPeople(OPTIONS, train=2, test=1)


def test_pictures_masks_depth_normals_and_meshes_agree(faces):
    for index in range(len(faces)):
        subject, (vertices, triangles) = faces.subject(index), faces.mesh(index)
        assert trimesh.Trimesh(vertices.numpy(), triangles.numpy(), process=False).is_watertight
        for camera in range(4):
            mask = subject.mask[camera]
            assert 0.15 < float(mask.float().mean()) < 0.5, "a close-up"
            assert not bool(mask[0].any() | mask[-1].any() | mask[:, 0].any() | mask[:, -1].any()), "truncated"
            assert not bool(subject.rgb[camera][~mask].any()) and torch.equal(subject.depth[camera] > 0, mask)
            rays = faces.cameras(index).generate_rays(camera_indices=camera)
            points = (rays.origins + rays.directions * subject.depth[camera][..., None])[mask]
            assert float(torch.cdist(points, vertices).amin(1).max()) < 0.03, "triangles of hair are large"
            facing = (subject.normals[camera][mask] * rays.directions[mask]).sum(-1)
            assert float((facing < 0.1).float().mean()) > 0.97, "what is seen faces the camera"


def test_keypoints_are_on_the_face_that_all_cameras_stand_before(faces):
    for index in range(len(faces)):
        subject, vertices = faces.subject(index), faces.mesh(index)[0]
        assert faces.keypoint_names == tuple(FACE_KEYPOINTS) and len(subject.keypoints) == len(FACE_KEYPOINTS) == 13
        assert float(torch.cdist(subject.keypoints, vertices).amin(1).max()) < 1e-3
        low, high = keypoint_box(subject.keypoints)
        assert bool(((vertices > low) & (vertices < high)).all()), "the box of the keypoints holds the whole head"
        column, row = SourceViews.of(subject, range(4), torch.device("cpu")).project(subject.keypoints)[0].unbind(-1)
        near = torch.nn.functional.max_pool2d(subject.mask.float(), 3, 1, 1)
        assert all(bool((near[c, row[c].long(), column[c].long()] > 0).all()) for c in range(4))
        at = dict(zip(FACE_KEYPOINTS, subject.keypoints))
        assert float(at["forehead"][2]) > float(at["nose_tip"][2]) > float(at["upper_lip"][2]) > float(at["chin"][2])
        assert float(at["left_eye_outer"][0]) > float(at["left_eye_inner"][0]) > float(at["right_eye_inner"][0])
        assert float(at["nose_tip"][1]) < float(at["left_eye_outer"][1]), "it looks along -y"
        azimuth = torch.atan2(subject.poses[:, 0, 3], -subject.poses[:, 1, 3]).rad2deg()
        assert float(azimuth.abs().max()) < 90 and float(azimuth.amax() - azimuth.amin()) > 90


def test_faces_differ_in_shape_colour_and_expression(faces):
    one, other = faces.person(0)[0], faces.person(1)[0]
    assert torch.equal(one.faces, other.faces) and len(one.vertices) == len(one.colours)
    assert float((one.body - other.body).norm(dim=-1).mean()) > 0.004
    assert float((one.colours - other.colours).abs().mean()) > 0.05
    assert float((one.vertices - one.body).norm(dim=-1).max()) > 0.01, "hair stands off"


def test_facial_actions_move_their_keypoints():
    places = list(FACE_KEYPOINTS.values())

    def moved(**actions):
        points = anny_face({}, {}, actions).rest_vertices - anny_face({}, {}, {}).rest_vertices
        return dict(zip(FACE_KEYPOINTS, points[places]))

    jaw, smile = moved(jawOpen=1.0), moved(mouthSmileLeft=1.0)
    assert float(jaw["chin"][2]) < -0.01 and float(jaw["forehead"].norm()) < 1e-4
    assert float(smile["left_mouth_corner"][2]) > 0.004 > float(smile["right_mouth_corner"][2])
    names = [f"{name}{side}" for name in ON_BOTH_SIDES for side in ("Left", "Right")] + list(IN_THE_MIDDLE)
    rest = anny_face({}, {}, {}).rest_vertices
    for name in dict.fromkeys(names):
        assert float((anny_face({}, {}, {name: 1.0}).rest_vertices - rest).norm(dim=1).max()) > 0.002, name
    for name in FACE_SHAPES:
        assert float((anny_face({}, {name: 1.0}, {}).rest_vertices - rest).norm(dim=1).max()) > 0.001, name


def test_whole_people_are_asked_for_where_faces_do_not_do(faces):
    with pytest.raises(InputError, match="no body"):
        faces.body(0)
    with pytest.raises(InputError, match="whole people"):
        ProceduralScans(faces, ScanOptions())


def test_the_same_seed_is_the_same_face(faces):
    again = ProceduralPeople(OPTIONS, train=1, test=1)
    torch.testing.assert_close(again.person(0)[0].vertices, faces.person(0)[0].vertices, atol=1e-6, rtol=0)
    assert np.array_equal(again.person(0)[1], faces.person(0)[1])
