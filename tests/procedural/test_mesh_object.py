import numpy as np
import pytest
import torch
import trimesh

from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from nerfstudio_ext.data.surface_dataset import SurfaceDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.mesh_object import MeshObject
from nerfstudio_ext.procedural.object_scene import ObjectScene, ObjectSceneOptions

pytestmark = pytest.mark.extra("embreex")


@pytest.fixture
def ball(tmp_path):
    """A ball of radius 30 far from the origin, red in its lower half and blue in its upper one; y is up."""
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=30.0)
    colours = np.where(mesh.vertices[:, 1:2] < 0, [[200, 0, 0]], [[0, 0, 200]]).astype(np.uint8)
    mesh.visual.vertex_colors = colours
    mesh.apply_translation([100, 50, 0])
    mesh.export(tmp_path / "ball.ply")
    return tmp_path / "ball.ply"


def test_ball_is_drawn_where_it_is(ball):
    scene = ObjectScene(ObjectSceneOptions(str(ball), num_views=3, size=24, up="y"))
    view = scene.view(2)
    points = (scene.poses[2, :, 3] + view.depth[..., None] * scene.rays(2))[view.mask]
    assert (points.norm(dim=-1) - 0.95).abs().max() < 0.005
    facing = (view.normals[view.mask] * torch.nn.functional.normalize(points, dim=-1)).sum(-1)
    assert facing.min() > 0.99
    up = points[:, 2]
    colours = view.rgb[view.mask]
    assert (colours[up > 0.1][:, 2] > 0.2).all() and (colours[up > 0.1][:, 0] < 0.05).all(), "upright"
    assert (colours[up < -0.1][:, 0] > 0.2).all()
    assert view.depth[~view.mask].max() == 0 and view.rgb[~view.mask].min() > 0.1, "a background is behind it"


def test_files_of_one_name_are_told_apart(ball):
    before = ObjectScene(ObjectSceneOptions(str(ball), num_views=1, size=12))
    trimesh.creation.box().export(ball)
    after = ObjectScene(ObjectSceneOptions(str(ball), num_views=1, size=12))
    assert before.folder != after.folder and not torch.equal(before.view(0).mask, after.view(0).mask)


def test_plain_meshes_get_bands_and_seams_are_closed(tmp_path):
    box = trimesh.creation.box()
    split = trimesh.Trimesh(box.triangles.reshape(-1, 3), np.arange(36).reshape(12, 3), process=False)
    split.export(tmp_path / "box.stl")
    found = MeshObject(tmp_path / "box.stl", "z")
    assert len(found.verts) == 8 and np.ptp(found.colours, axis=0).min() > 0.1
    assert np.allclose(np.linalg.norm(found.verts, axis=1), 0.95, atol=1e-6)


def test_parser_serves_it_like_any_object(ball):
    parser = ProceduralObjectDataParserConfig(object=str(ball), views=6, size=12, num_views=2, up="y").setup()
    item = SurfaceDataset(parser.get_dataparser_outputs("train"))[1]
    assert item["gt_normals"].shape == (12, 12, 3) and 0.2 < float(item["fg_mask"].mean()) < 0.8


def test_bad_meshes_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no mesh .*gone\.obj"):
        MeshObject(tmp_path / "gone.obj", "z")
    (tmp_path / "page.glb").write_text("<html>not found</html>")
    with pytest.raises(InputError, match=r"page\.glb cannot be read as a mesh"):
        MeshObject(tmp_path / "page.glb", "z")
