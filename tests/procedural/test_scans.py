"""Scans of drawn people: both sides belong together, labels are right, and cameras see what they drew."""

from typing import Tuple

import numpy as np
import pytest
import torch
import trimesh

from nerfstudio_ext.procedural.casting import MeshCaster
from nerfstudio_ext.procedural.people import PeopleOptions, ProceduralPeople
from nerfstudio_ext.procedural.scans import ProceduralScans, Scan, ScanOptions

LIGHT = np.array([0.0, 0.0, 1.0])


def caster(*shapes: trimesh.Trimesh) -> MeshCaster:
    mesh = trimesh.util.concatenate(shapes)
    vertices, faces = torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces)
    return MeshCaster(vertices, faces, torch.full_like(vertices, 0.5), LIGHT)


@pytest.mark.extra("embreex")
def test_points_inside_spheres_that_overlap_or_nest_are_inside():
    shapes = [trimesh.creation.icosphere(4, radius) for radius in (1.0, 0.6, 0.2)]
    shapes[1].apply_translation([0.9, 0.1, 0.0])
    points = np.random.default_rng(0).uniform(-1.5, 1.5, (4000, 3))
    far = [
        np.linalg.norm(points - centre, axis=1) / radius for centre, radius in (((0, 0, 0), 1.0), ((0.9, 0.1, 0), 0.6))
    ]
    inside = np.minimum(*far)
    sure = np.abs(inside - 1) > 0.02
    assert np.array_equal(caster(*shapes).contains(points)[sure], (inside < 1)[sure])


@pytest.mark.extra("embreex")
def test_the_far_side_of_a_sphere_is_its_back():
    origins = torch.tensor([[0.2, -3.0, 0.1], [0.0, -3.0, 2.0]])
    near, far = caster(trimesh.creation.icosphere(4, 1.0)).sides(
        origins, torch.tensor([[0.0, 1.0, 0.0]] * 2), torch.tensor([True, True])
    )
    assert near.mask.tolist() == far.mask.tolist() == [True, False]
    depth = (1 - 0.2**2 - 0.1**2) ** 0.5
    torch.testing.assert_close(near.normals[0], torch.tensor([0.2, -depth, 0.1]), atol=0.02, rtol=0)
    torch.testing.assert_close(far.normals[0], torch.tensor([0.2, depth, 0.1]), atol=0.02, rtol=0)
    assert not far.rgb[1].any()


@pytest.fixture(scope="module")
def drawn() -> Tuple[ProceduralPeople, Scan]:
    people = ProceduralPeople(PeopleOptions(4, 32, 0), 2, 1)
    return people, ProceduralScans(people, ScanOptions(views=4, size=48, points=2000))[1]


@pytest.mark.extra("anny")
def test_sides_face_the_camera_and_away_from_it(drawn):
    scan = drawn[1]
    mask = (scan.rgb > 0).any(1)
    assert 0.1 < float(mask.float().mean()) < 0.6
    for normals, sign in ((scan.normals, -1), (scan.back_normals, 1)):
        assert not normals.permute(0, 2, 3, 1)[~mask].any()
        depth = sign * normals[:, 2].float()
        # Smooth normals lean a little beyond the edge of what is seen.
        assert float((depth[mask] > -40).float().mean()) > 0.99 and float(depth[mask].mean()) > 50


@pytest.mark.extra("anny")
def test_points_inside_are_seen_on_the_person_by_every_camera(drawn):
    scan = drawn[1]
    mask = (scan.rgb > 0).any(1)[:, None].float()
    grown = torch.nn.functional.max_pool2d(mask, 5, 1, 2)
    places = scan.camera.project(scan.camera.local(scan.points[scan.inside > 0].expand(4, -1, -1)))
    seen = torch.nn.functional.grid_sample(grown, places[:, None], align_corners=False)
    assert float(seen.min()) > 0
    assert 0.2 < float(scan.inside.mean()) < 0.6
    assert sorted(scan.camera.perspective[:, 0].tolist()) == [False, False, True, True]


@pytest.mark.extra("anny")
def test_labels_are_those_of_the_mesh(drawn):
    people, scan = drawn
    vertices, faces = people.mesh(1)
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    points = scan.points[:300].numpy()
    odd, inside = mesh.contains(points), scan.inside[:300].bool().numpy()
    # Parity calls what two parts share, such as an arm that touches the chest, outside; nothing else differs.
    assert inside[odd].all() and (odd == inside).mean() > 0.97


@pytest.mark.extra("anny")
def test_scans_are_kept_and_the_same_again(drawn):
    people, scan = drawn
    again = ProceduralScans(people, ScanOptions(views=4, size=48, points=2000))[1]
    assert torch.equal(again.points, scan.points) and torch.equal(again.rgb, scan.rgb)


@pytest.mark.parametrize("size, kept", [(96, 256), (512, 37)])
def test_scans_in_memory_take_four_gigabytes_at_most(size: int, kept: int):
    scans = ProceduralScans(ProceduralPeople(PeopleOptions(4, 32, 0), 2, 1), ScanOptions(views=36, size=size))
    assert scans._read.cache_info().maxsize == kept
