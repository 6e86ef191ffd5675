import numpy as np
import pytest
import torch
from PIL import Image

from dataparsers.llff import LlffDataParserConfig
from nerfstudio_ext.data.surface_dataset import SurfaceDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.rigs import rig_poses

SIZE = (24, 16)


def write(folder, views=5, change=lambda rows: rows, scale=1, masks=True):
    """A folder in LLFF layout whose rows speak of pictures `scale` times as large; returns the poses."""
    poses = rig_poses("hemisphere", views, 4.0)
    rows = []
    for k, pose in enumerate(poses.double().numpy()):
        right, up, backward, position = pose.T
        size = [SIZE[1] * scale, SIZE[0] * scale, 30 * scale]
        matrix = np.stack([-up, right, backward, position, size], axis=1)
        rows.append([*matrix.reshape(-1), 1.0, 9.0])
        for name, value in (("images", 40 * k), ("masks", 0)):
            if name == "masks" and not masks:
                continue
            (folder / name).mkdir(parents=True, exist_ok=True)
            picture = np.full((*SIZE[::-1], 3), value, np.uint8)
            picture[4:12, 6:18] = 255
            Image.fromarray(picture).save(folder / name / f"{k:02d}.jpg")
    np.save(folder / "poses_bounds.npy", change(np.array(rows)))
    return poses


def parse(folder, split="train", **options):
    return LlffDataParserConfig(data=folder, **options).setup().get_dataparser_outputs(split)


@pytest.mark.parametrize("scale", [1, 4])
def test_cameras_come_back(tmp_path, scale):
    poses = write(tmp_path, scale=scale)
    outputs = parse(tmp_path, train_views="0,3")
    assert torch.allclose(outputs.cameras.camera_to_worlds, poses[[0, 3]], atol=1e-6)
    for value, wanted in (("fx", 30.0), ("fy", 30.0), ("cx", 12.0), ("cy", 8.0)):
        assert torch.allclose(getattr(outputs.cameras, value), torch.tensor(wanted)), value
    assert len(parse(tmp_path, "test", train_views="0,3").cameras) == 3


def test_masks_are_foreground(tmp_path):
    write(tmp_path)
    item = SurfaceDataset(parse(tmp_path, num_views=2))[0]
    assert float((item["fg_mask"] > 0.5).float().mean()) == pytest.approx(0.25, abs=0.03) and "mask" not in item


def test_a_folder_of_masks_that_was_named_must_be_there(tmp_path):
    write(tmp_path, masks=False)
    assert "fg_mask_filenames" not in parse(tmp_path).metadata and parse(tmp_path, masks="none")
    with pytest.raises(InputError, match=r"no folder of masks .*msak"):
        parse(tmp_path, masks="msak")


def test_real_poses_are_read(shared_data):
    outputs = parse(shared_data / "sparse_berlin", train_views="0,1")
    assert len(outputs.cameras) == 2 and int(outputs.cameras.width[0]) == 816
    smaller = parse(shared_data / "sparse_berlin", train_views="0,1", images="images_2")
    assert torch.allclose(smaller.cameras.fx * 2, outputs.cameras.fx)


def no_rotation(rows):
    rows[2, 0] += 1
    return rows


def not_finite(rows):
    rows[1, 3] = np.nan
    return rows


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: rows[:4], "4 cameras for 5 pictures"),
        (lambda rows: rows[:, :12], r"shape \(5, 12\)"),
        (no_rotation, "Row 2 .* holds no rotation"),
        (not_finite, r"Row 1 .*01\.jpg.* not finite"),
        (lambda rows: np.concatenate([rows[:, :4], 2 * rows[:, 4:5], rows[:, 5:]], 1), "of another shape"),
    ],
)
def test_bad_files_are_named(tmp_path, change, sentence):
    write(tmp_path, change=change)
    with pytest.raises(InputError, match=sentence):
        parse(tmp_path)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(InputError, match="give --data"):
        parse(None)
    write(tmp_path)
    (tmp_path / "poses_bounds.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match="half downloaded"):
        parse(tmp_path)
    (tmp_path / "poses_bounds.npy").unlink()
    with pytest.raises(InputError, match="not in LLFF layout"):
        parse(tmp_path)
