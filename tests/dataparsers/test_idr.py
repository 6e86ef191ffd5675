import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from dataparsers.idr import IdrDataParserConfig, decompose
from nerfstudio_ext.data.surface_dataset import SurfaceDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.rigs import rig_poses

SIZE = (24, 16)


def write(folder, views=6, change=lambda arrays: None, masks=True):
    """A folder in IDR layout with known cameras; returns their poses in the normalised frame."""
    poses = rig_poses("hemisphere", views, 2.5).double().numpy()
    calibration = np.array([[30.0, 0, 11.2], [0, 31.0, 7.9], [0, 0, 1]])
    scale = np.diag([200.0, 200, 200, 1])
    scale[:3, 3] = [10, -20, 30]
    arrays = {}
    for k, pose in enumerate(poses):
        rotation = (pose[:, :3] * [1, -1, -1]).T
        centre = scale[:3, :3] @ pose[:, 3] + scale[:3, 3]
        world = np.eye(4)
        world[:3] = calibration @ np.concatenate([rotation, -rotation @ centre[:, None]], axis=1)
        arrays[f"world_mat_{k}"], arrays[f"scale_mat_{k}"] = world, scale
        (folder / "image").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*SIZE[::-1], 3), 10 * k, np.uint8)).save(folder / "image" / f"{k:03d}.png")
        if masks:
            (folder / "mask").mkdir(exist_ok=True)
            mask = np.zeros(SIZE[::-1], np.uint8)
            mask[4:12, 6:18] = 255
            Image.fromarray(mask).save(folder / "mask" / f"{k:03d}.png")
    change(arrays)
    np.savez(folder / "cameras.npz", **arrays)
    return torch.tensor(poses, dtype=torch.float32)


def parse(folder, split="train", **options):
    return IdrDataParserConfig(data=folder, **options).setup().get_dataparser_outputs(split)


def test_cameras_come_back(tmp_path):
    poses = write(tmp_path)
    outputs = parse(tmp_path, train_views="0,2,5")
    assert torch.allclose(outputs.cameras.camera_to_worlds, poses[[0, 2, 5]], atol=1e-4)
    assert torch.allclose(outputs.cameras.fx, torch.tensor(30.0), atol=1e-3)
    assert torch.allclose(outputs.cameras.fy, torch.tensor(31.0), atol=1e-3)
    assert torch.allclose(outputs.cameras.cx, torch.tensor(11.7), atol=1e-3), "pixel centres move by one half"
    assert len(parse(tmp_path, "test", train_views="0,2,5").cameras) == 3


def test_transform_leads_back_to_the_world(tmp_path):
    write(tmp_path)
    outputs = parse(tmp_path)
    world = torch.tensor([[210.0, -20.0, 30.0]])
    transform = outputs.dataparser_transform
    trained = outputs.dataparser_scale * (world @ transform[:, :3].T + transform[:, 3])
    assert torch.allclose(trained, torch.tensor([[1.0, 0.0, 0.0]]), atol=1e-5)


def test_masks_are_foreground_not_sampling_masks(tmp_path):
    write(tmp_path)
    item = SurfaceDataset(parse(tmp_path))[0]
    assert item["fg_mask"].shape == (16, 24, 1) and item["fg_mask"].mean() == pytest.approx(0.25)
    assert "mask" not in item


def test_pictures_named_after_their_cameras(tmp_path):
    poses = write(tmp_path)
    for folder in ("image", "mask"):
        for k in (0, 3):
            (tmp_path / folder / f"{k:03d}.png").unlink()
    outputs = parse(tmp_path, num_views=3, pick="even")
    assert [path.name for path in outputs.image_filenames] == ["001.png", "002.png", "004.png"]
    assert torch.allclose(outputs.cameras.camera_to_worlds, poses[[1, 2, 4]], atol=1e-4)


def renamed(folder, name):
    """Give the pictures, or masks, of a folder names made from their numbers; all at once, since names may overlap."""
    moved = []
    for path in sorted(folder.glob("*.png")):
        moved.append((path.rename(path.with_suffix(".moved")), folder / name(int(path.stem))))
    for path, target in moved:
        path.rename(target)


def first_pixels(paths):
    return [int(np.array(Image.open(path))[0, 0, 0]) for path in paths]


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_without_zeros_pair_pictures_with_their_cameras(tmp_path, first, capsys):
    """By the alphabet 10 comes before 2; counted from 1, names are no camera numbers but still have an order."""
    poses = write(tmp_path, views=13)
    for name in ("image", "mask"):
        renamed(tmp_path / name, lambda k: f"{k + first}.png")
    outputs = parse(tmp_path, train_views="1,2,10,12")
    assert torch.allclose(outputs.cameras.camera_to_worlds, poses[[1, 2, 10, 12]], atol=1e-4)
    assert first_pixels(outputs.image_filenames) == [10, 20, 100, 120]
    stems = [path.stem for path in outputs.image_filenames]
    assert [path.stem for path in outputs.metadata["fg_mask_filenames"]] == stems
    assert "not by the alphabet" in capsys.readouterr().out


def test_masks_belong_to_pictures_by_name_or_number(tmp_path):
    write(tmp_path, views=12)
    renamed(tmp_path / "image", lambda k: f"img_{k}.png")
    renamed(tmp_path / "mask", lambda k: f"mask_{k:04d}.png")
    outputs = parse(tmp_path, train_views="2,10")
    assert [path.name for path in outputs.metadata["fg_mask_filenames"]] == ["mask_0002.png", "mask_0010.png"]
    renamed_mask = tmp_path / "mask" / "mask_0011.png"
    renamed_mask.rename(renamed_mask.with_name("mask_0099.png"))
    with pytest.raises(InputError, match=r"mask_0\d+\.png belongs to no picture"):
        parse(tmp_path)


@pytest.mark.parametrize("name", ["{}_mask.png", "mask_{}.png", "{}.png.png", "{}.png"])
def test_masks_are_named_as_people_name_them(tmp_path, name):
    """Without a number to go by: the mask of a.png is a_mask.png, mask_a.png, COLMAP's a.png.png, or a.png."""
    write(tmp_path, views=4)
    words = ["anna", "ben", "cleo", "dora"]
    renamed(tmp_path / "image", lambda k: f"{words[k]}.png")
    renamed(tmp_path / "mask", lambda k: name.format(words[k]))
    outputs = parse(tmp_path, train_views="0,2")
    assert [path.stem for path in outputs.image_filenames] == ["anna", "cleo"]
    assert [path.name for path in outputs.metadata["fg_mask_filenames"]] == [name.format("anna"), name.format("cleo")]


def test_masks_of_dtu(tmp_path):
    """image/000000.png and mask/000.png, as IDR's archives have them."""
    write(tmp_path, views=11)
    renamed(tmp_path / "image", lambda k: f"{k:06d}.png")
    outputs = parse(tmp_path, train_views="2,10")
    assert [path.name for path in outputs.metadata["fg_mask_filenames"]] == ["002.png", "010.png"]


def test_masks_that_may_be_anybodys_are_refused(tmp_path):
    write(tmp_path, views=4)
    words = ["anna", "ben", "cleo", "dora"]
    renamed(tmp_path / "image", lambda k: f"{words[k]}.png")
    renamed(tmp_path / "mask", lambda k: f"{words[k]}.png")
    shutil.copy(tmp_path / "mask" / "ben.png", tmp_path / "mask" / "ben_mask.png")
    with pytest.raises(InputError, match=r"ben\.png and ben_mask\.png could both be the mask of ben\.png: keep one"):
        parse(tmp_path)
    (tmp_path / "mask" / "ben_mask.png").unlink()
    (tmp_path / "image" / "cleo.png").rename(tmp_path / "image" / "anna.jpg")
    (tmp_path / "mask" / "cleo.png").rename(tmp_path / "mask" / "somebody.png")
    with pytest.raises(InputError, match=r"anna\.png could be the mask of two pictures"):
        parse(tmp_path)
    (tmp_path / "mask" / "anna.png").rename(tmp_path / "mask" / "anna.png.png")
    (tmp_path / "mask" / "somebody.png").rename(tmp_path / "mask" / "anna.jpg.png")
    outputs = parse(tmp_path, train_views="0,1")
    assert [path.name for path in outputs.metadata["fg_mask_filenames"]] == ["anna.jpg.png", "anna.png.png"]


def test_published_views_go_by_the_folders_name(tmp_path):
    """A head of H3DS in its own layout: img_0000.jpg, mask_0000.png and cameras.npz."""
    head = tmp_path / "5ae021f2805c0854"
    write(head, views=60)
    for name, prefix in (("image", "img"), ("mask", "mask")):
        for path in (head / name).glob("*.png"):
            path.rename(path.with_name(f"{prefix}_{int(path.stem):04d}.png"))
    outputs = parse(head, official_views=3)
    assert [path.stem for path in outputs.image_filenames] == ["img_0001", "img_0007", "img_0054"]
    assert outputs.metadata["fg_mask_filenames"][2].stem == "mask_0054"
    with pytest.raises(InputError, match="give one of them"):
        parse(head, official_views=3, num_views=4)
    with pytest.raises(InputError, match="no published views for a folder called"):
        parse(head.rename(tmp_path / "head"), official_views=3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a.update(world_mat_2=np.zeros((4, 4))), "world_mat_2.*singular"),
        (lambda a: a.update(world_mat_1=np.full((4, 4), np.nan)), "world_mat_1.*not finite"),
        (lambda a: a.pop("scale_mat_3"), "scale_mat_3.*missing"),
        (lambda a: a.update(scale_mat_3=np.eye(4)), "differ from view to view"),
        (lambda a: a.update({f"scale_mat_{k}": np.eye(4)[:3] for k in range(6)}), "scale_mat_0.*of a wrong shape"),
        (
            lambda a: [a.pop(f"world_mat_{k}") for k in (4, 5)],
            r"4 cameras \(world_mat_0 to world_mat_3\) for 6 pictures \(000\.png to 005\.png\)",
        ),
        (lambda a: a.update({f"scale_mat_{k}": -np.eye(4) for k in range(6)}), "not a positive scale"),
    ],
)
def test_bad_cameras_are_named(change, sentence, tmp_path):
    write(tmp_path, change=change)
    with pytest.raises(InputError, match=sentence):
        parse(tmp_path)


def test_pictures_and_masks_may_lie_in_other_folders(tmp_path):
    write(tmp_path)
    (tmp_path / "image").rename(tmp_path / "grey")
    for path in (tmp_path / "grey").glob("*"):
        Image.open(path).convert("L").save(path)
    (tmp_path / "mask" / "000.png").unlink()
    outputs = parse(tmp_path, images="grey", masks="none", num_views=4)
    assert [path.parent.name for path in outputs.image_filenames] == ["grey"] * 4
    assert "fg_mask_filenames" not in outputs.metadata
    with pytest.raises(InputError, match=r"5 masks for 6 pictures.*or no such folder"):
        parse(tmp_path, images="grey")


def test_a_folder_of_masks_that_was_named_must_be_there(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match=r"no folder of masks .*msak.*--masks none"):
        parse(tmp_path, masks="msak")
    (tmp_path / "mask").rename(tmp_path / "away")
    assert "fg_mask_filenames" not in parse(tmp_path).metadata, "nobody asked for the usual one"


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="holds no pictures"):
        parse(tmp_path)
    write(tmp_path)
    (tmp_path / "mask" / "000.png").unlink()
    with pytest.raises(InputError, match="5 masks for 6 pictures"):
        parse(tmp_path)
    for path in (tmp_path / "mask").glob("*"):
        path.unlink()
    for k in range(6):
        Image.fromarray(np.full(SIZE[::-1], 255, np.uint8)).save(tmp_path / "mask" / f"{k:03d}.png")
    with pytest.raises(InputError, match="invert them"):
        parse(tmp_path)
    Image.new("RGB", (5, 5)).save(tmp_path / "image" / "003.png")
    for path in (tmp_path / "mask").glob("*"):
        path.unlink()
    (tmp_path / "mask").rmdir()
    with pytest.raises(InputError, match=r"003\.png is not 24x16"):
        parse(tmp_path)
    (tmp_path / "cameras.npz").write_bytes(b"PK half")
    with pytest.raises(InputError, match="half downloaded"):
        parse(tmp_path)


def test_pictures_that_are_none_are_named(tmp_path):
    write(tmp_path)
    (tmp_path / "image" / "002.png").write_text("<html>gone</html>")
    with pytest.raises(InputError, match=r"002\.png is no picture"):
        parse(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE[::-1], 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "image" / "002.png")
    whole = (tmp_path / "image" / "002.png").read_bytes()
    (tmp_path / "image" / "002.png").write_bytes(whole[: len(whole) // 2])
    dataset = SurfaceDataset(parse(tmp_path, train_views="1,2"))
    with pytest.raises(InputError, match=r"002\.png cannot be read to its end"):
        dataset[1]
    for path in (tmp_path / "mask").glob("*"):
        path.write_text("no mask")
    with pytest.raises(InputError, match=r"mask.0\d\d\.png is no picture"):
        parse(tmp_path)


def test_two_choices_of_views_are_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match=r"--train-views and --num-views .*give one of them"):
        parse(tmp_path, train_views="0,1", num_views=4)


def test_no_test_view_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match="--max-test-views 0 leaves no view"):
        parse(tmp_path, max_test_views=0)


def test_decomposition_of_random_cameras():
    random = np.random.default_rng(0)
    for _ in range(20):
        rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
        rotation *= np.sign(np.linalg.det(rotation))
        calibration = np.array([[500.0, 0.3, 320], [0, 480, 240], [0, 0, 1]])
        centre = random.normal(size=3)
        projection = calibration @ np.concatenate([rotation, -rotation @ centre[:, None]], axis=1)
        found, pose = decompose(projection * random.uniform(0.1, 9) * random.choice([-1, 1]), "it")
        assert np.allclose(found, calibration, atol=1e-6)
        assert np.allclose(pose[:, 3], centre) and np.allclose(pose[:, :3], rotation.T * [1, -1, -1], atol=1e-8)
