import hashlib
import json

import numpy as np
import pytest
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.keypoint_encoding import keypoint_box
from nerfstudio_ext.human.subject import SourceViews
from nerfstudio_ext.procedural.people import KEPT, PeopleOptions, ProceduralPeople
from nerfstudio_ext.procedural.person import BODY_KEYPOINTS

OPTIONS = PeopleOptions(cameras=3, size=48)
needs_body = [pytest.mark.extra("anny"), pytest.mark.extra("embreex"), pytest.mark.slow]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Drawn for this module alone, so that old pictures in the user's cache cannot stand in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NERFSTUDIO_EXT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield ProceduralPeople(OPTIONS, train=2, test=1)


def on_all(function):
    for mark in needs_body:
        function = mark(function)
    return function


@on_all
def test_pictures_masks_depth_normals_and_meshes_agree(people):
    for index in range(len(people)):
        subject, (vertices, faces) = people.subject(index), people.mesh(index)
        views = SourceViews.of(subject, range(3), torch.device("cpu"))
        pixels, _ = views.project(vertices)
        assert int(faces.max()) < len(vertices)
        for camera in range(3):
            mask = subject.mask[camera]
            assert 0.04 < float(mask.float().mean()) < 0.4
            assert not bool(mask[0].any() | mask[-1].any() | mask[:, 0].any() | mask[:, -1].any()), "truncated"
            assert not bool(subject.rgb[camera][~mask].any())
            assert torch.equal(subject.depth[camera] > 0, mask)
            column, row = pixels[camera].floor().long().unbind(1)
            near = torch.nn.functional.max_pool2d(mask.float()[None], 3, 1, 1)[0] > 0
            assert float(near[row, column].float().mean()) > 0.95, "but for some finger tips"
            rays = people.cameras(index).generate_rays(camera_indices=camera)
            points = (rays.origins + rays.directions * subject.depth[camera][..., None])[mask]
            assert float(torch.cdist(points, vertices).amin(1).max()) < 0.06
            facing = (subject.normals[camera][mask] * rays.directions[mask]).sum(-1)
            assert float((facing < 0.1).float().mean()) > 0.97, "what is seen faces the camera"


@on_all
def test_keypoints_are_inside_the_body_and_on_the_right_side(people):
    for index in range(len(people)):
        subject = people.subject(index)
        assert subject.keypoints.shape == (len(people.keypoint_names), 3)
        views = SourceViews.of(subject, range(3), torch.device("cpu"))
        column, row = views.project(subject.keypoints)[0].floor().long().unbind(-1)
        near = torch.nn.functional.max_pool2d(subject.mask.float(), 3, 1, 1)  # wrists are thinner than a pixel
        assert all(bool((near[c, row[c], column[c]] > 0).all()) for c in range(3))
        low, high = keypoint_box(subject.keypoints)
        vertices = people.mesh(index)[0]
        assert bool(((vertices > low) & (vertices < high)).all()), "the box of the keypoints holds the whole person"
        at = dict(zip(BODY_KEYPOINTS, subject.keypoints))
        assert float(at["head"][2]) > float(at["pelvis"][2]) > float(at["left_ankle"][2])
        across = at["left_hip"] - at["right_hip"]
        assert float(across @ (at["left_shoulder"] - at["right_shoulder"])) > 0


@on_all
def test_people_differ_and_are_drawn_once(people, monkeypatch):
    subjects = [people.subject(k) for k in range(3)]
    heights = [float(np.ptp(people.mesh(k)[0][:, 2])) for k in range(3)]
    assert max(heights) - min(heights) > 0.03
    assert float((people.mesh(0)[0] - people.mesh(1)[0]).norm(dim=-1).mean()) > 0.05
    monkeypatch.setattr("nerfstudio_ext.procedural.people.make_person", lambda random: pytest.fail("drawn again"))
    again = ProceduralPeople(OPTIONS, train=1, test=2)
    assert torch.equal(again.subject(0).rgb, subjects[0].rgb)
    assert torch.equal(again.subject(1).rgb, subjects[2].rgb), "the first test person, however many train"
    assert [again.name(k) for k in range(3)] == ["train_0000", "test_0000", "test_0001"]


@on_all
def test_the_seed_decides(people, monkeypatch, tmp_path):
    monkeypatch.setenv("NERFSTUDIO_EXT_CACHE", str(tmp_path))
    assert torch.equal(ProceduralPeople(OPTIONS, 1, 1).subject(0).rgb, people.subject(0).rgb)
    assert not torch.equal(ProceduralPeople(PeopleOptions(3, 48, seed=1), 1, 1).subject(0).rgb, people.subject(0).rgb)


@on_all
def test_memory_does_not_grow_with_people(people, monkeypatch):
    many = ProceduralPeople(OPTIONS, 100, 1)
    monkeypatch.setattr(many, "_drawn", lambda index: people._drawn(index % 2))
    for index in range(100):
        many.subject(index)
    assert many._read.cache_info().currsize == KEPT


def test_cameras_need_no_drawing(monkeypatch, tmp_path):
    monkeypatch.setenv("NERFSTUDIO_EXT_CACHE", str(tmp_path))
    monkeypatch.setattr("nerfstudio_ext.procedural.people.make_person", lambda random: pytest.fail("drawn"))
    people = ProceduralPeople(OPTIONS, train=3, test=2)
    poses = torch.stack([people.cameras(k).camera_to_worlds for k in range(5)])
    assert float(torch.pdist(poses.flatten(1)).min()) > 0.1, "everyone has a rig of their own"


@pytest.mark.parametrize("changes", [dict(train=0, test=1), dict(train=1, test=0)])
def test_no_people_is_refused(changes):
    with pytest.raises(InputError, match="one to train on"):
        ProceduralPeople(OPTIONS, **changes)


def test_people_that_were_drawn_before_faces_are_found_again():
    key = hashlib.sha256(json.dumps([1, {"cameras": 3, "size": 48, "seed": 0}]).encode()).hexdigest()[:16]
    assert ProceduralPeople(OPTIONS, 1, 1).folder.name == key
    assert ProceduralPeople(PeopleOptions(3, 48, subjects="faces"), 1, 1).folder.name != key


@on_all
def test_stronger_poses_are_other_pictures_of_the_same_people(people):
    quiet, strong = (ProceduralPeople(PeopleOptions(3, 48, 0, strength), 2, 1) for strength in (0.0, 1.5))
    usual = people.person(0)[0]
    for store in (quiet, strong):
        assert store.folder != people.folder
        person = store.person(0)[0]
        assert torch.equal(person.colours, usual.colours) and not torch.equal(person.keypoints, usual.keypoints)
    rest = quiet.person(0)[0].keypoints
    left, right = (rest[hand] - rest[0] for hand in (22, 23))
    assert abs(float(left.norm() - right.norm())) < 0.02, "at rest both hands are as far from the pelvis"


@on_all
def test_bodies_are_inside_the_clothes(people):
    vertices, _ = people.mesh(0)
    found = people.body(0).features(vertices, torch.eye(3, 4))
    assert float((found[:, 0] > -0.01).float().mean()) > 0.97 and float(found[:, 0].max()) > 0.01
    assert float(found[:, 4:].abs().max()) <= 1.01
