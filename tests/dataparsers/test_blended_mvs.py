import numpy as np
import pytest
import torch
from PIL import Image

from dataparsers.blended_mvs import BlendedMvsDataParserConfig
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.rigs import rig_poses

SIZE = (24, 18)


def write(folder, views=4):
    """A scan as published, with the masked twin of every picture; returns the poses."""
    poses = rig_poses("ring", views, 3.5)
    (folder / "blended_images").mkdir(parents=True)
    (folder / "cams").mkdir()
    for k, pose in enumerate(poses.double().numpy()):
        rotation = (pose[:, :3] * [1, -1, -1]).T
        world = np.eye(4)
        world[:3] = np.concatenate([rotation, -rotation @ pose[:, 3:]], axis=1)
        rows = "\n".join(" ".join(map(str, row)) for row in world)
        text = f"extrinsic\n{rows}\n\nintrinsic\n33.0 0 11.5\n0 34.0 8.5\n0 0 1\n\n1.0 0.1 128 9.0\n"
        (folder / "cams" / f"{k:08d}_cam.txt").write_text(text)
        for name in (f"{k:08d}", f"{k:08d}_masked"):
            Image.fromarray(np.full((*SIZE[::-1], 3), 50 * k, np.uint8)).save(folder / "blended_images" / f"{name}.jpg")
    return poses


def parse(folder, split="train", **options):
    return BlendedMvsDataParserConfig(data=folder, **options).setup().get_dataparser_outputs(split)


def test_cameras_come_back(tmp_path):
    poses = write(tmp_path)
    outputs = parse(tmp_path, train_views="1,2")
    assert torch.allclose(outputs.cameras.camera_to_worlds, poses[[1, 2]], atol=1e-5)
    for value, wanted in (("fx", 33.0), ("fy", 34.0), ("cx", 12.0), ("cy", 9.0)):
        assert torch.allclose(getattr(outputs.cameras, value), torch.tensor(wanted)), value
    assert [path.name for path in outputs.image_filenames] == ["00000001.jpg", "00000002.jpg"]
    assert len(parse(tmp_path, "val", num_views=3).cameras) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "camera file of its name"),
        ("extrinsic\n1 2 3", "no camera file"),
        ("extrinsic" + " 2" * 16 + "\nintrinsic" + " 1" * 9, "no rotation"),
        ("extrinsic" + " nan" * 16 + "\nintrinsic" + " 1" * 9, "not finite"),
        ("extrinsic 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1 intrinsic -1 0 0 0 1 0 0 0 1", "positive focal"),
    ],
)
def test_bad_cameras_are_named(tmp_path, text, sentence):
    write(tmp_path)
    path = tmp_path / "cams" / "00000002_cam.txt"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError, match=sentence) as caught:
        parse(tmp_path)
    assert "00000002_cam.txt" in str(caught.value)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="not in BlendedMVS layout"):
        parse(tmp_path)
    with pytest.raises(InputError, match="give --data"):
        parse(None)
