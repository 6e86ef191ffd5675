"""The neutral layout: what `ns-ext human convert` writes trains like the capture that it was made of."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from dataparsers import _capture
from dataparsers.easymocap import EasymocapDataParserConfig
from dataparsers.multiview_human import MultiviewHumanDataParserConfig
from dataparsers.zju_mocap import ZjuMocapDataParserConfig
from nerfstudio_ext.cli.human import Check, Fit
from nerfstudio_ext.cli.human_convert import Convert
from nerfstudio_ext.data.human import HumanDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.human_scene import write_human_scene
from nerfstudio_ext.human.body_motion import read_body, write_body
from nerfstudio_ext.human.neutral_layout import open_layout, read_neutral
from nerfstudio_ext.human.zju_layout import read_layout
from nerfstudio_ext.procedural.human import HumanSceneOptions, human_scene
from tests.dataparsers.test_zju_mocap import annotate
from tests.human.test_smpl_body import contents

pytestmark = [pytest.mark.extra("anny"), pytest.mark.extra("embreex"), pytest.mark.slow]
LENS = np.array([[0.02, -0.01, 0.001, 0.002, 0.003]])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """In ZJU-MoCap's layout, counted from 1, through a lens that bends a little."""
    folder = tmp_path_factory.mktemp("zju") / "person"
    write_human_scene(human_scene(HumanSceneOptions(frames=3, cameras=3, size=48)), folder, "long")
    annotate(folder, lambda annots: annots["cams"].update(D=[LENS.T] * 3))
    return folder


@pytest.fixture(scope="module")
def neutral(drawn):
    Convert(drawn, drawn.parent / "neutral").main()
    return drawn.parent / "neutral"


@pytest.fixture
def folder(neutral, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(neutral, tmp_path / "neutral")


def parse(folder, split="train", **options):
    return MultiviewHumanDataParserConfig(data=folder, **options).setup().get_dataparser_outputs(split)


def same(one, other):
    """Two parsers' outputs: cameras, pictures, masks and bodies."""
    assert one.metadata["views"] == other.metadata["views"]
    for name in ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height", "times"):
        torch.testing.assert_close(getattr(one.cameras, name), getattr(other.cameras, name), rtol=0, atol=2e-5)
    pair = HumanDataset(one), HumanDataset(other)
    for k in range(len(pair[0])):
        first, second = pair[0][k], pair[1][k]
        assert bool(first["fg_mask"].any()) and torch.equal(first["fg_mask"], second["fg_mask"])
        assert float((first["image"] - second["image"]).abs().max()) <= 1 / 255
    for name in ("vertices", "root_rotation", "root_translation"):
        found, wanted = (getattr(outputs.metadata["body_motion"], name) for outputs in (one, other))
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_converted_capture_is_the_capture(drawn, neutral, split):
    options = dict(train_cameras="0,2", frames=2, novel_frames=1)
    wanted = ZjuMocapDataParserConfig(data=drawn, **options).setup().get_dataparser_outputs(split)
    same(parse(neutral, split, **options), wanted)


def test_no_pickle_is_written_and_times_are(neutral):
    assert {path.suffix for path in neutral.rglob("*") if path.is_file()} == {".json", ".npz", ".jpg", ".png"}
    frames = json.loads((neutral / "transforms.json").read_text())["frames"]
    assert [(f["camera_id"], f["frame_index"], f["time"]) for f in frames[::3]] == [
        ("00", 1, 0.0), ("00", 2, 0.5), ("00", 3, 1.0),
    ]  # fmt: skip
    assert (neutral / frames[4]["mask_path"]).is_file() and frames[4]["file_path"] == "images/01/000002.jpg"


def test_the_other_commands_read_it(neutral, tmp_path, capsys):
    assert Check(neutral, tmp_path / "check").main() == 0
    assert "Body and masks agree" in capsys.readouterr().out and len(list((tmp_path / "check").iterdir())) == 3
    with pytest.raises(InputError, match="holds no kpts2d"):
        Fit(neutral, tmp_path / "body.npz").main()


def test_moments_may_come_in_any_order_and_bodies_are_found_by_their_number(folder):
    """Entries and the body's frames are shuffled: frame_index and frame_ids say what belongs together."""
    wanted = parse(folder)
    meta = json.loads((folder / "transforms.json").read_text())
    meta["frames"] = [meta["frames"][k] for k in (6, 7, 8, 0, 1, 2, 3, 4, 5)]
    (folder / "transforms.json").write_text(json.dumps(meta))
    motion = read_body(folder / "body.npz")
    write_body(motion.at([2, 0, 1]), folder / "body.npz", frame_ids=np.array([3, 1, 2]))
    same(parse(folder), wanted)
    write_body(motion.at([2, 0]), folder / "body.npz", frame_ids=np.array([3, 1]))
    with pytest.raises(InputError, match="no body for frame 2"):
        parse(folder)
    (folder / "body.npz").unlink()
    with pytest.raises(InputError, match="ns-ext human fit"):
        parse(folder)


def write_easymocap(drawn, folder):
    """The same capture as EasyMocap lays it out; cameras in metres, files counted from 1."""
    layout = read_layout(drawn)
    names = ["a", "b", "c"]
    folder.mkdir()
    files = {name: cv2.FileStorage(str(folder / f"{name}.yml"), cv2.FILE_STORAGE_WRITE) for name in ("intri", "extri")}
    for file in files.values():
        file.startWriteStruct("names", cv2.FileNode_SEQ)
        for name in names:
            file.write("", name)
        file.endWriteStruct()
    for column, (name, camera) in enumerate(zip(names, layout.cameras)):
        files["intri"].write(f"K_{name}", camera.calibration)
        files["intri"].write(f"dist_{name}", camera.distortion[None])
        files["extri"].write(f"Rot_{name}", camera.rotation)
        files["extri"].write(f"T_{name}", camera.translation[:, None])
        for kind, paths in (("images", layout.files()), ("mask", layout.masks())):
            (folder / kind / name).mkdir(parents=True)
            for number, row in zip(layout.numbers, paths):
                shutil.copyfile(row[column], folder / kind / name / f"{number:06d}{row[column].suffix}")
    for file in files.values():
        file.release()
    return folder


def test_easymocaps_folders_train(drawn, tmp_path, capsys):
    source = write_easymocap(drawn, tmp_path / "easymocap")
    Convert(source, tmp_path / "neutral", body=drawn / "body.npz").main()
    assert "multiview-human-data" in capsys.readouterr().out
    wanted = ZjuMocapDataParserConfig(data=drawn).setup().get_dataparser_outputs("train")
    builds = [read_body(path / "body.npz").build for path in (tmp_path / "neutral", drawn)]
    assert builds[0] == builds[1] and builds[0] is not None, "so that it can walk"
    same(parse(tmp_path / "neutral"), wanted)
    direct = EasymocapDataParserConfig(data=source, body=drawn / "body.npz").setup()
    same(direct.get_dataparser_outputs("train"), wanted)
    # Without masks and body both are missed by name; the key points that fit a body come from elsewhere.
    shutil.move(source / "mask", tmp_path / "labels")
    Convert(source, tmp_path / "bare").main()
    told = capsys.readouterr().out
    assert (
        "there are no masks" in told and "ns-ext human fit" in told and not open_layout(tmp_path / "bare").has_masks()
    )
    Convert(source, tmp_path / "masked", masks=tmp_path / "labels").main()
    assert open_layout(tmp_path / "masked").has_masks()


def test_easymocaps_parameters_become_the_body(drawn, tmp_path, monkeypatch):
    """Only the frames that have parameters are taken."""
    source = write_easymocap(drawn, tmp_path / "easymocap")
    np.savez(tmp_path / "smpl.npz", **contents())
    params = source / "output-smpl-3d" / "smpl"
    params.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in (2, 3):
        sizes = {"poses": 72, "Rh": 3, "Th": 3, "shapes": 10}
        person = {key: (0.2 * random.normal(size=(1, size))).tolist() for key, size in sizes.items()}
        (params / f"{number:06d}.json").write_text(json.dumps({"annots": [person]}))
    Convert(source, tmp_path / "neutral", model=tmp_path / "smpl.npz").main()
    layout, motion = read_neutral(tmp_path / "neutral"), read_body(tmp_path / "neutral" / "body.npz")
    assert layout.numbers == [2, 3] and motion.vertices.shape == (2, 40, 3)
    # Where these bodies of random numbers are has nothing to do with the pictures.
    monkeypatch.setattr(_capture, "check_views", lambda *rest: None)
    direct = EasymocapDataParserConfig(data=source, model=tmp_path / "smpl.npz").setup().get_dataparser_outputs("train")
    assert torch.equal(direct.metadata["body_motion"].vertices, motion.vertices)
    assert [path.name for path in direct.image_filenames[::2]] == ["000002.jpg", "000003.jpg"]
    for options in ({}, dict(model=tmp_path / "smpl.npz", body=drawn / "body.npz")):
        with pytest.raises(InputError, match="Give --model or --body"):
            EasymocapDataParserConfig(data=source, **options).setup().get_dataparser_outputs("train")
    (source / "images" / "b" / "000003.jpg").unlink()
    with pytest.raises(InputError, match="camera b has no picture of frame 3"):
        Convert(source, tmp_path / "other", model=tmp_path / "smpl.npz").main()
    with pytest.raises(InputError, match="--model or --body"):
        Convert(source, tmp_path / "other", model=tmp_path / "smpl.npz", body=drawn / "body.npz").main()


def rewrite(folder, change):
    path = folder / "transforms.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


def moved(frame):
    frame["transform_matrix"][0][3] += 0.1


SPOILED = {
    "no file": (lambda f: (f / "transforms.json").unlink(), r"There is no .*transforms\.json"),
    "no camera_id": (lambda f: rewrite(f, lambda m: m["frames"][2].pop("camera_id")), "has no camera_id"),
    "the same twice": (lambda f: rewrite(f, lambda m: m["frames"].append(m["frames"][0])), "second picture"),
    "a camera missed a moment": (lambda f: rewrite(f, lambda m: m["frames"].pop(4)), "camera 01 has no picture of fra"),
    "no calibration": (lambda f: rewrite(f, lambda m: m["frames"][1].pop("fl_x")), "has no fl_x"),
    "words": (lambda f: rewrite(f, lambda m: m["frames"][1].update(cx="left")), "cx is .left., which is no number"),
    "a camera that moves": (lambda f: rewrite(f, lambda m: moved(m["frames"][3])), "camera 00 moves"),
    "no rotation": (
        lambda f: rewrite(f, lambda m: [x.update(transform_matrix=np.ones((4, 4)).tolist()) for x in m["frames"]]),
        "are no rotation",
    ),
    "pictures of another size": (
        lambda f: rewrite(f, lambda m: [x.update(w=96, h=96) for x in m["frames"]]),
        "48x48, but its intrinsics are for 96x96",
    ),
    "a fisheye": (lambda f: rewrite(f, lambda m: m.update(camera_model="OPENCV_FISHEYE")), "camera_model OPENCV_FISHE"),
    "a mask too few": (lambda f: rewrite(f, lambda m: m["frames"][5].pop("mask_path")), "masks for some pictures"),
    "frames by name": (lambda f: rewrite(f, lambda m: m.update(frames={"a": {}})), "must be a list"),
    "a moment in words": (lambda f: rewrite(f, lambda m: m["frames"][0].update(frame_index="first")), "whole number"),
    "no pictures": (lambda f: rewrite(f, lambda m: m.update(frames=[])), "names no picture"),
    "a missing mask": (lambda f: (f / "masks" / "01" / "000002.png").unlink(), r"There is no .*000002\.png"),
}


@pytest.mark.parametrize("what", list(SPOILED))
def test_what_is_wrong_is_found_when_loading(what, folder):
    spoil, sentence = SPOILED[what]
    spoil(folder)
    with pytest.raises(InputError, match=sentence):
        parse(folder)
