import numpy as np
import pytest
import torch
import trimesh

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.mesh_file import write_mesh
from nerfstudio_ext.export.scene_mesh import to_source_units, vertex_normals
from nerfstudio_ext.procedural.objects import OBJECTS
from nerfstudio_ext.surface.isosurface import extract_mesh
from nerfstudio_ext.surface.mesh import Mesh, large_components, largest_component

CPU = torch.device("cpu")


def ball(points):
    return points.norm(dim=-1) - 0.6


def test_mesh_of_a_ball():
    mesh, _ = extract_mesh(ball, 64, 1.0, CPU)
    assert np.abs(np.linalg.norm(mesh.verts, axis=1) - 0.6).max() < 0.002
    assert ((vertex_normals(mesh) * mesh.verts).sum(1) > 0.5).all(), "faces wind outwards"
    assert trimesh.Trimesh(mesh.verts, mesh.faces).is_watertight


@pytest.mark.parametrize("name", ["torus-box", "lattice", "vase"])
def test_coarse_look_changes_nothing(name):
    sdf = OBJECTS[name].sdf
    quick, evaluated = extract_mesh(sdf, 96, 1.1, CPU)
    dense, all_points = extract_mesh(sdf, 96, 1.1, CPU, coarse=False)
    assert np.array_equal(quick.faces, dense.faces)
    assert np.allclose(quick.verts, dense.verts, atol=1e-3)
    assert evaluated < 0.6 * all_points


def test_resolution_need_not_fit_the_blocks():
    mesh, _ = extract_mesh(ball, 53, 1.0, CPU)
    assert np.abs(np.linalg.norm(mesh.verts, axis=1) - 0.6).max() < 0.003


def test_empty_field_is_refused_with_its_range():
    with pytest.raises(InputError, match=r"from 4\.\d+ to 5\.\d+.*never changes its sign"):
        extract_mesh(lambda p: ball(p) + 5, 32, 1.0, CPU)


def test_largest_part_is_kept():
    def two(points):
        return torch.minimum(ball(points), (points - 0.8).norm(dim=-1) - 0.1)

    mesh, _ = extract_mesh(two, 64, 1.0, CPU)
    mesh = Mesh(mesh.verts, mesh.faces, np.zeros((len(mesh.verts), 3), np.uint8))
    kept = largest_component(mesh)
    assert len(kept.verts) < len(mesh.verts) == len(mesh.colours)
    assert np.abs(np.linalg.norm(kept.verts, axis=1) - 0.6).max() < 0.002 and len(kept.colours) == len(kept.verts)


def test_parts_that_are_not_small_are_kept():
    def three(points):
        others = [(points - x).norm(dim=-1) - radius for x, radius in ((0.75, 0.2), (-0.8, 0.05))]
        return torch.minimum(ball(points), torch.minimum(*others))

    mesh, _ = extract_mesh(three, 96, 1.0, CPU)
    for share, dropped in ((1.0, 2), (0.05, 1), (0.0, 0)):
        kept, left_out = large_components(mesh, share)
        assert left_out == dropped
        assert (kept.verts[:, 0].max() > 0.7) == (dropped < 2) and (kept.verts[:, 0].min() < -0.7) == (dropped == 0)
        assert kept.faces.max() == len(kept.verts) - 1


@pytest.mark.parametrize("name", ["m.obj", "m.ply", "m.glb"])
def test_written_meshes_come_back(name, tmp_path):
    mesh, _ = extract_mesh(ball, 24, 1.0, CPU)
    colours = np.tile(np.uint8([200, 100, 50]), (len(mesh.verts), 1))
    write_mesh(Mesh(mesh.verts, mesh.faces, colours), tmp_path / "new" / name)
    again = trimesh.load(tmp_path / "new" / name, force="mesh", process=False)
    assert len(again.vertices) == len(mesh.verts) and len(again.faces) == len(mesh.faces)
    assert np.allclose(np.asarray(again.visual.vertex_colors)[:, :3], colours, atol=1)


def test_unknown_format_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.obj, \.ply, \.glb"):
        write_mesh(Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])), tmp_path / "mesh.xyz")


def test_source_units_undo_the_dataparser():
    class Outputs:
        dataparser_scale = 0.25
        dataparser_transform = torch.tensor([[0.0, -1, 0, 5], [1, 0, 0, -2], [0, 0, 1, 1]])

    source = np.random.default_rng(0).normal(size=(10, 3))
    rotation, translation = Outputs.dataparser_transform[:, :3].numpy(), Outputs.dataparser_transform[:, 3].numpy()
    trained = 0.25 * (source @ rotation.T + translation)
    back = to_source_units(Mesh(trained.astype(np.float32), np.zeros((0, 3), int)), Outputs)
    assert np.allclose(back.verts, source, atol=1e-5)
