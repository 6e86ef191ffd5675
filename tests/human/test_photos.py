import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.photos import PhotoStore, write_photos
from nerfstudio_ext.human.subject import SourceViews
from tests.human.toy_person import toy_subject

NAMES = tuple("abcdef")


@pytest.fixture
def folder(tmp_path):
    write_photos(toy_subject(4, size=64), range(4), NAMES, tmp_path)
    return tmp_path


def edit(folder, change):
    path = folder / "transforms.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


def test_framed_pictures_show_the_same_points(folder):
    """A point falls on the same colour before and after the photos are cut and resized."""
    subject, store = toy_subject(4, size=64), PhotoStore(folder, 48, NAMES)
    framed = store.subject(0)
    assert framed.rgb.shape == (4, 48, 48, 3) and store.name(0) == folder.name
    torch.testing.assert_close(framed.keypoints, subject.keypoints)
    points = 0.2 * torch.randn(50, 3)
    found = []
    for one in (subject, framed):
        views = SourceViews.of(one, range(4), torch.device("cpu"))
        height = one.rgb.shape[1]
        grid = views.project(points)[0] / height * 2 - 1
        colour = torch.nn.functional.grid_sample(views.rgb, grid[:, None], align_corners=False)
        found.append(colour)
    torch.testing.assert_close(*found, atol=0.06, rtol=0)
    side = torch.nonzero(framed.mask[0].any(0)).flatten()
    assert 0.7 < len(side) / 48 < 0.9, "the person takes four fifths of the picture"


def test_keypoints_come_in_the_order_of_the_network(folder):
    order = tuple(reversed(NAMES))
    torch.testing.assert_close(PhotoStore(folder, 32, order).subject(0).keypoints, toy_subject(4).keypoints.flip(0))


def test_changed_photos_are_read_again(folder):
    store = PhotoStore(folder, 32, NAMES)
    before, version = store.subject(0), store.version(0)
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(folder / "images" / "00.png")
    assert store.version(0) != version
    assert not torch.equal(store.subject(0).rgb, before.rgb)


def test_lens_distortion_is_taken_out(folder):
    straight, k1 = PhotoStore(folder, 48, NAMES).subject(0), 0.2
    meta = json.loads((folder / "transforms.json").read_text())["frames"][0]
    matrix = np.array([[meta["fl_x"], 0, meta["cx"] - 0.5], [0, meta["fl_y"], meta["cy"] - 0.5], [0, 0, 1]])
    columns, rows = np.meshgrid(np.arange(64.0), np.arange(64.0))
    pixels = np.stack([columns, rows], -1).reshape(-1, 1, 2)
    seen = cv2.undistortPoints(pixels, matrix, np.array([k1, 0, 0, 0]), P=matrix).reshape(64, 64, 2).astype(np.float32)
    for kind in ("images", "masks"):
        picture = np.asarray(Image.open(folder / kind / "00.png"))
        Image.fromarray(cv2.remap(picture, seen, None, cv2.INTER_LINEAR)).save(folder / kind / "00.png")
    bent = PhotoStore(folder, 48, NAMES).subject(0)
    edit(folder, lambda meta: meta["frames"][0].update(k1=k1))
    mended = PhotoStore(folder, 48, NAMES).subject(0)
    errors = [float((x.rgb[0].float() - straight.rgb[0].float()).abs().mean()) for x in (bent, mended)]
    assert errors[1] < 0.4 * errors[0]


def lose(key):
    return lambda meta: meta.pop(key)


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda meta: meta.update(frames=meta["frames"][:1]), "1 photo.*two at least"),
        (lambda meta: meta["frames"][1].pop("fl_x"), "not calibrated: it has no fl_x"),
        (lambda meta: meta["frames"][1].pop("transform_matrix"), "no transform_matrix"),
        (lambda meta: meta["frames"][1].pop("mask_path"), "no mask_path"),
        (lambda meta: meta["frames"][1].update(file_path="images/none.png"), "there is no .*none.png"),
        (lose("keypoints3d"), "needs keypoint_names"),
        (lambda meta: meta.update(keypoint_names=list("abcdez")), "lacks keypoints.*: f"),
        (lambda meta: meta.update(keypoints3d=[[1000 * x for x in p] for p in meta["keypoints3d"]]), "in metres"),
        (lambda meta: meta["keypoints3d"][0].__setitem__(0, float("nan")), "finite"),
        (lambda meta: [row.__setitem__(2, -row[2]) for row in meta["frames"][0]["transform_matrix"][:3]],
         "behind the camera"),
        (lambda meta: meta["frames"][2].update(cx=meta["frames"][2]["cx"] + 64), "do not belong together"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_person_is_said_in_one_sentence(folder, change, message):
    edit(folder, change)
    with pytest.raises(InputError, match=message) as error:
        PhotoStore(folder, 32, NAMES)
    assert "\n" not in str(error.value)


def test_bad_files(folder, tmp_path):
    with pytest.raises(InputError, match=r"no .*transforms\.json"):
        PhotoStore(tmp_path / "nowhere", 32, NAMES)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(folder / "masks" / "01.png")
    with pytest.raises(InputError, match=r"01\.png is empty"):
        PhotoStore(folder, 32, NAMES)
    Image.fromarray(np.zeros((60, 64), np.uint8)).save(folder / "masks" / "01.png")
    with pytest.raises(InputError, match="64x64, but its mask 64x60"):
        PhotoStore(folder, 32, NAMES)
    (folder / "transforms.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        PhotoStore(folder, 32, NAMES)
