import json

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from PIL import Image

from nerfstudio_ext.data.surface import SurfaceDataManagerConfig, SurfaceDataset, select_views
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.rigs import rig_poses


def outputs_of(folder, views=4, mask_size=(12, 8), **more):
    """Pictures of 12x8 pixels with masks as a stock dataparser gives them."""
    for k in range(views):
        Image.fromarray(np.full((8, 12, 3), 20 * k, np.uint8)).save(folder / f"{k}.png")
        mask = np.zeros(mask_size[::-1], np.uint8)
        mask[: mask_size[1] // 2] = 255
        Image.fromarray(mask).save(folder / f"mask_{k}.png")
    cameras = Cameras(rig_poses("ring", views, 4.0), fx=10.0, fy=10.0, cx=6.0, cy=4.0, width=12, height=8)
    files = dict(image_filenames=[folder / f"{k}.png" for k in range(views)])
    return DataparserOutputs(
        **files, cameras=cameras, mask_filenames=[folder / f"mask_{k}.png" for k in range(views)], **more
    )


def test_masks_of_a_stock_parser_are_foreground(tmp_path):
    item = SurfaceDataset(outputs_of(tmp_path))[2]
    assert "mask" not in item, "the host would train the object's pixels only"
    assert torch.equal(item["fg_mask"][:, 0, 0], torch.tensor([1.0] * 4 + [0.0] * 4))


def test_masks_of_another_size_are_named(tmp_path):
    dataset = SurfaceDataset(outputs_of(tmp_path, mask_size=(6, 4)))
    with pytest.raises(InputError, match=r"mask_1\.png is 6x4, but its picture is 12x8"):
        dataset[1]


def test_chosen_views_take_along_what_is_theirs(tmp_path):
    outputs = outputs_of(tmp_path, metadata={"names": ["a", "b", "c", "d"], "scale": 2.0, "points": torch.zeros(4, 3)})
    chosen = select_views(outputs, [3, 1])
    assert [path.name for path in chosen.image_filenames] == ["3.png", "1.png"]
    assert [path.name for path in chosen.mask_filenames] == ["mask_3.png", "mask_1.png"]
    assert chosen.metadata["names"] == ["d", "b"] and len(chosen.metadata["points"]) == 4
    assert torch.equal(chosen.cameras.camera_to_worlds, outputs.cameras.camera_to_worlds[[3, 1]])


@pytest.fixture
def blender(tmp_path):
    """A scene in Blender's layout: 6 training and 5 test views of 8x8 pixels with an alpha channel."""
    for split, count in (("train", 6), ("val", 2), ("test", 5)):
        (tmp_path / split).mkdir()
        frames = []
        for k, pose in enumerate(rig_poses("hemisphere", count, 4.0)):
            matrix = torch.cat([pose, torch.tensor([[0.0, 0, 0, 1]])])
            frames.append({"file_path": f"./{split}/r_{k}", "transform_matrix": matrix.tolist()})
            picture = np.zeros((8, 8, 4), np.uint8)
            picture[2:6, 2:6] = [200, 30 * k, 0, 255]
            Image.fromarray(picture).save(tmp_path / split / f"r_{k}.png")
        text = json.dumps({"camera_angle_x": 0.7, "frames": frames})
        (tmp_path / f"transforms_{split}.json").write_text(text)
    return tmp_path


def manager(folder, **options):
    config = SurfaceDataManagerConfig(dataparser=BlenderDataParserConfig(data=folder), **options)
    return config.setup(device="cpu", test_mode="test")


def test_views_of_any_parser_can_be_chosen(blender, capsys):
    found = manager(blender, train_views="1,4", max_test_views=2)
    names = [path.name for path in found.train_dataset.image_filenames]
    assert names == ["r_1.png", "r_4.png"] and "2 training views: r_1, r_4" in capsys.readouterr().out
    assert [path.name for path in found.eval_dataset.image_filenames] == ["r_0.png", "r_2.png"]
    assert len(manager(blender, num_views=3).train_dataset) == 3
    assert len(manager(blender).train_dataset) == 6
    with pytest.raises(InputError, match="view 6, but the training part"):
        manager(blender, train_views="6")


def test_stock_cameras_are_normalised_and_alpha_is_the_mask(blender):
    found = manager(blender, num_views=4)
    radii = found.train_dataset.cameras.camera_to_worlds[:, :, 3].norm(dim=-1)
    assert float(radii.max()) == pytest.approx(3 / 1.1, rel=1e-3)
    item = found.train_dataset[0]
    assert float(item["fg_mask"].mean()) == pytest.approx(0.25) and item["image"].shape == (8, 8, 3)
    assert torch.equal(item["image"][0, 0], torch.ones(3)), "blended with white"
