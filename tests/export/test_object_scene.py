import numpy as np
import pytest
import torch
import trimesh

from dataparsers.idr import IdrDataParserConfig
from nerfstudio_ext.cli.data import Make
from nerfstudio_ext.data.surface_dataset import SurfaceDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.object_scene import ObjectScene, ObjectSceneOptions


def test_written_scene_is_read_back_as_it_was_drawn(tmp_path):
    Make("vase", tmp_path / "vase", views=5, size=20).main()
    outputs = IdrDataParserConfig(data=tmp_path / "vase", train_views="0,3").setup().get_dataparser_outputs("train")
    scene = ObjectScene(ObjectSceneOptions("vase", num_views=5, size=20))
    dataset = SurfaceDataset(outputs)
    for k, index in enumerate((0, 3)):
        rays = outputs.cameras.generate_rays(camera_indices=k)
        assert torch.allclose(rays.directions, scene.rays(index), atol=1e-5)
        assert torch.allclose(rays.origins[0, 0], scene.poses[index, :, 3], atol=1e-4)
        assert (dataset[k]["image"] - scene.view(index).rgb).abs().max() < 0.003
        assert torch.equal(dataset[k]["fg_mask"][..., 0] > 0.5, scene.view(index).mask)
    assert np.allclose(np.load(tmp_path / "vase" / "depth" / "003.npy"), scene.view(3).depth)
    assert len(trimesh.load(tmp_path / "vase" / "mesh.ply").faces) > 1000


def test_full_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not empty"):
        Make("vase", tmp_path).main()
