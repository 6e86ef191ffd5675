import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from dataparsers.procedural_human import ProceduralHumanDataParserConfig
from dataparsers.zju_mocap import ZjuMocapDataParserConfig
from nerfstudio_ext.data.human import HumanDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.human_scene import write_human_scene
from nerfstudio_ext.human.body_grid import BodyFrames
from nerfstudio_ext.human.body_motion import read_body, write_body
from nerfstudio_ext.human.zju_layout import frame_number, read_plain
from nerfstudio_ext.procedural.human import HumanSceneOptions, human_scene

OPTIONS = HumanSceneOptions(frames=3, cameras=3, size=48)
pytestmark = [pytest.mark.extra("anny"), pytest.mark.extra("embreex"), pytest.mark.slow]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zju") / "person"
    write_human_scene(human_scene(OPTIONS), folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(original, tmp_path / "person")


def parse(folder, split="train", **options):
    return ZjuMocapDataParserConfig(data=folder, **options).setup().get_dataparser_outputs(split)


def annotate(folder, change):
    annots = np.load(folder / "annots.npy", allow_pickle=True).item()
    change(annots)
    np.save(folder / "annots.npy", np.array(annots, dtype=object), allow_pickle=True)


def masks(folder, change):
    for path in (folder / "mask_cihp").rglob("*.png"):
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def vertices(folder, change):
    for path in (folder / "new_vertices").glob("*.npy"):
        np.save(path, change(np.load(path)))


@pytest.mark.parametrize("naming", ["numbers", "long"])
def test_the_written_layout_is_the_drawn_scene(naming, tmp_path):
    """Both ways lead to the same cameras, times, body frames and masks, and to pictures as near as JPEG gets."""
    write_human_scene(human_scene(OPTIONS), tmp_path / "person", naming)
    for split in ("train", "val"):
        drawn = ProceduralHumanDataParserConfig(frames=3, cameras=3, size=48).setup().get_dataparser_outputs(split)
        read = parse(tmp_path / "person", split, train_cameras="0,1")
        assert read.metadata["views"] == drawn.metadata["views"]
        for name in ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height", "times"):
            torch.testing.assert_close(getattr(read.cameras, name), getattr(drawn.cameras, name), rtol=0, atol=2e-6)
        pair = HumanDataset(read), HumanDataset(drawn)
        for k in range(len(pair[0])):
            one, other = pair[0][k], pair[1][k]
            for key in ("fg_mask", "box_mask", "frame"):
                assert (torch.as_tensor(one[key]) == torch.as_tensor(other[key])).all()
            assert float((one["image"] - other["image"]).abs().max()) <= 6 / 255
            assert float((one["image"] - other["image"]).abs().mean()) < 0.2 / 255
            assert "gt_depth" not in one and "gt_depth" in other
    motions = read.metadata["body_motion"], drawn.metadata["body_motion"]
    frames = [BodyFrames(motion, 0.05, 0.05, 2) for motion in motions]
    for one, other in zip(*frames):
        assert torch.equal(one.tables.site_of_point, other.tables.site_of_point)
        assert all(torch.equal(a, b) for a, b in zip(one.tables.same, other.tables.same))
        torch.testing.assert_close(one.box, other.box)


def test_frames_and_cameras_are_chosen(original):
    outputs = parse(original, frames=2, novel_frames=1)
    assert outputs.metadata["trained_frames"] == [0, 1]
    assert outputs.metadata["views"] == [(0, 0), (0, 1), (1, 0), (1, 1)], "all but the last camera"
    assert len(outputs.metadata["body_motion"].vertices) == 3
    vertices = outputs.metadata["body_motion"].vertices
    early = parse(original, "val", begin=1, novel_begin=0, novel_frames=1)
    assert early.metadata["trained_frames"] == [0, 1] and early.metadata["views"] == [(0, 2), (1, 2), (2, 2)]
    assert [path.stem for path in early.image_filenames] == ["000001", "000002", "000000"]
    assert torch.equal(early.metadata["body_motion"].vertices, vertices[[1, 2, 0]])
    test = parse(original, "val", frames=2, novel_frames=1)
    assert test.metadata["views"] == [(0, 2), (1, 2), (2, 2)]
    assert test.cameras.times.flatten().tolist() == [0.0, 0.5, 1.0]
    assert parse(original, "val", eval_step=2, train_cameras="1").metadata["views"] == [(0, 0), (0, 2), (2, 0), (2, 2)]
    assert len(parse(original, begin=1, frame_step=2).metadata["body_motion"].vertices) == 1
    for options, message in [
        (dict(frames=3, novel_frames=1), "3 frames, too few"),
        (dict(train_cameras="0,1,2"), "one at least is left"),
        (dict(train_cameras="a"), "not 'a'"),
        (dict(novel_begin=0, novel_frames=1), "Frame 0 would be trained on and scored"),
        (dict(begin=1, novel_begin=0, novel_frames=4), "too few for .* --novel-begin 0 --novel-frames 4"),
        (dict(eval_step=0), "--eval-step 0 must be 1"),
        (dict(eval_step=-1), "--eval-step -1 must be 1"),
    ]:
        with pytest.raises(InputError, match=message):
            parse(original, **options)


def test_a_body_file_takes_the_place_of_the_fit(folder, tmp_path):
    shutil.rmtree(folder / "new_vertices")
    with pytest.raises(InputError, match="ns-ext human fit"):
        parse(folder)
    parse(folder, body=folder / "body.npz")
    write_body(read_body(folder / "body.npz").at([0, 1]), tmp_path / "short.npz")
    with pytest.raises(InputError, match=r"short\.npz has 2 frames.* 3"):
        parse(folder, body=tmp_path / "short.npz")


def test_the_better_fit_is_preferred(folder):
    for kind in ("params", "vertices"):
        shutil.copytree(folder / f"new_{kind}", folder / kind)
    for path in (folder / "vertices").glob("*.npy"):
        np.save(path, np.load(path) + 0.01)
    heights = {fit: float(parse(folder, fit=fit).metadata["body_motion"].vertices[0, 0, 2])
               for fit in ("auto", "new", "first")}  # fmt: skip
    assert heights["auto"] == heights["new"] == pytest.approx(heights["first"] - 0.01, abs=1e-5)


SPOILED = {
    "T in metres": (lambda f: annotate(f, lambda a: a["cams"].update(T=[t / 1000 for t in a["cams"]["T"]])), "metres"),
    "camera to world": (
        lambda f: annotate(f, lambda a: a["cams"].update(R=[r.T for r in a["cams"]["R"]],
                                                         T=[-r.T @ t for r, t in zip(a["cams"]["R"], a["cams"]["T"])])),
        "would fit if R and T lead from the camera to the world",
    ),
    "cameras in another order": (
        lambda f: annotate(f, lambda a: [a["cams"].update({k: a["cams"][k][1:] + a["cams"][k][:1]}) for k in "KDRT"]),
        "would fit if the cameras are in another order",
    ),
    "K for pictures of another size": (
        lambda f: annotate(f, lambda a: a["cams"].update(K=[np.diag([2.0, 2, 1]) @ k for k in a["cams"]["K"]])),
        "centre at 47, 47, which is not near the middle of 48x48",
    ),
    "vertices in mm": (lambda f: vertices(f, lambda v: 1000 * v), "must be in metres"),
    "y up": (lambda f: vertices(f, lambda v: v[:, [0, 2, 1]] * np.float32([1, 1, -1])), "y up"),
    "vertices the same in all frames": (
        lambda f: vertices(f, lambda v: np.load(f / "new_vertices" / "0.npy")), "same in all 3 frames",
    ),
    "NaN poses": (lambda f: np.save(f / "new_vertices" / "1.npy", np.full((13718, 3), np.nan)), "frame 1 are not "
    "finite"),
    "another family in one frame": (lambda f: np.save(f / "new_vertices" / "2.npy", np.zeros((6890, 3))), "same "
    ".vertices"),
    "no Rh": (lambda f: np.save(f / "new_params" / "0.npy", np.array({"Th": 1}, dtype=object)), "must hold Rh and Th"),
    "a body from another calibration": (lambda f: vertices(f, lambda v: v + np.float32([0.16, 0, 0])), "stood 1[4-9]"),
    "a body too high": (lambda f: vertices(f, lambda v: v + np.float32([0, 0, 0.3])), "stood [23][0-9] cm.*--c"),
    "inverted masks": (lambda f: masks(f, lambda m: 1 - m), "invert the masks"),
    "masks of another size": (lambda f: masks(f, lambda m: m[::2, ::2]), "24x24, but its picture 48x48"),
    "no one in a mask": (lambda f: masks(f, lambda m: 0 * m), "shows no person"),
    "a camera missed a frame": (lambda f: annotate(f, lambda a: a["ims"][1]["ims"].pop()), "2 pictures for 3 cameras"),
    "a missing picture": (lambda f: (f / "Camera_B1" / "000001.jpg").unlink(), "There is no .*000001.jpg"),
    "a missing mask": (lambda f: (f / "mask_cihp" / "Camera_B1" / "000001.png").unlink(), "There is no .*000001.png"),
    "no masks": (lambda f: shutil.rmtree(f / "mask_cihp"), "neither mask_cihp nor mask"),
    "a body out of sight": (lambda f: vertices(f, lambda v: v + np.float32([0, 0, 9])), "No vertex of the body"),
    "a broken camera": (lambda f: annotate(f, lambda a: a["cams"]["R"].__setitem__(1, np.ones((3, 3)))), "camera 1 "
    "is no rot"),
    "no cameras": (lambda f: annotate(f, lambda a: a.pop("cams")), "not laid out as"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(SPOILED))
def test_what_is_wrong_is_found_when_loading(what, folder):
    spoil, sentence = SPOILED[what]
    spoil(folder)
    with pytest.raises(InputError, match=sentence):
        parse(folder)


def test_loose_clothes_are_no_mistake(tmp_path):
    """The mask is wider than the body; a body that stands beside it is still told."""
    write_human_scene(human_scene(HumanSceneOptions(frames=3, cameras=3, size=48, loose=True)), tmp_path / "loose")
    assert len(parse(tmp_path / "loose").cameras) == 6
    vertices(tmp_path / "loose", lambda v: v + np.float32([0, 0, 0.3]))
    with pytest.raises(InputError, match=r"stood [23][0-9] cm from where it is"):
        parse(tmp_path / "loose")


def test_metres_are_read_when_said(folder):
    annotate(folder, lambda a: a["cams"].update(T=[t / 1000 for t in a["cams"]["T"]]))
    assert len(parse(folder, translation_unit="m").cameras) == 6


def test_pickles_cannot_run(tmp_path):
    class Bad:
        def __reduce__(self):
            return (print, ("run",))

    np.save(tmp_path / "annots.npy", np.array({"cams": Bad()}, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"plain numbers.*print"):
        read_plain(tmp_path / "annots.npy")
    (tmp_path / "annots.npy").write_bytes(pickle.dumps({"cams": 1}))
    with pytest.raises(InputError, match="plain numbers"):
        read_plain(tmp_path / "annots.npy")


def test_frame_numbers_of_both_namings():
    assert frame_number("Camera_B1/000012.jpg") == 12
    assert frame_number("Camera (1)/CoreView_313_Camera_(1)_0012_2019-08-23_16-08-50.592.jpg") == 12
    with pytest.raises(InputError, match="neither"):
        frame_number("Camera_B1/frame-a.jpg")
