import json
import os
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.photos import PhotoStore, write_photos
from nerfstudio_ext.human.subject import SourceViews
from tests.human.toy_person import photographed

NAMES = tuple("abcdef")


@pytest.fixture
def folder(tmp_path):
    write_photos(photographed(), range(4), NAMES, tmp_path)
    return tmp_path


def edit(folder, change):
    path = folder / "transforms.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


def test_framed_pictures_show_the_same_points(folder):
    """A point falls on the same colour before and after the photos are cut and resized."""
    subject, store = photographed(), PhotoStore(folder, 48, NAMES)
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
    torch.testing.assert_close(PhotoStore(folder, 32, order).subject(0).keypoints, photographed().keypoints.flip(0))


def test_changed_photos_are_read_again(folder):
    store = PhotoStore(folder, 32, NAMES)
    before, version = store.subject(0), store.version(0)
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(folder / "images" / "00.png")
    assert store.version(0) != version
    assert not torch.equal(store.subject(0).rgb, before.rgb)


def test_a_changed_transforms_json_is_read_again(folder):
    """Keypoints, cameras and masks of now, not of when the folder was opened."""
    store = PhotoStore(folder, 32, NAMES)
    before, version = store.subject(0), store.version(0)

    def change(meta):
        meta["keypoints3d"] = [[x + 0.02 for x in row] for row in meta["keypoints3d"]]
        meta["frames"][1]["fl_x"] *= 1.05
        meta["frames"][2]["mask_path"] = meta["frames"][3]["mask_path"]

    edit(folder, change)
    after = store.subject(0)
    assert store.version(0) != version
    torch.testing.assert_close(after.keypoints, before.keypoints + 0.02)
    assert float(after.intrinsics[1, 0]) == pytest.approx(1.05 * float(before.intrinsics[1, 0]))
    assert torch.equal(store.cameras(0).fx[:, 0], after.intrinsics[:, 0])
    edit(folder, lambda meta: meta["frames"].pop())
    with pytest.raises(InputError, match="names 3 photos now, and named 4"):
        store.version(0)


def test_versions_are_of_the_content(folder):
    """Files that are only touched change nothing; other bytes of the same size do."""
    store = PhotoStore(folder, 32, NAMES)
    version, path = store.version(0), folder / "transforms.json"
    os.utime(path, (1e9, 1e9))
    assert store.version(0) == version == PhotoStore(folder, 32, NAMES).version(0)
    path.write_text(path.read_text().replace('"w": 64', '"w":64 '))
    assert store.version(0) != version
    (folder / "images" / "03.png").unlink()
    with pytest.raises(InputError, match=r"there is no .*03\.png"):
        store.version(0)


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


def first(key: str, value: Any):
    """Sets an entry of the second photo."""
    return lambda meta: meta["frames"][1].update({key: value})


def spread(factor: float):
    """Pulls all keypoints towards their middle."""

    def change(meta):
        points = np.array(meta["keypoints3d"])
        meta["keypoints3d"] = (points.mean(0) + factor * (points - points.mean(0))).tolist()

    return change


def poses(change):
    """Changes the pose of every photo, as an array."""

    def changed(meta):
        for frame in meta["frames"]:
            frame["transform_matrix"] = np.asarray(change(np.array(frame["transform_matrix"]))).tolist()

    return changed


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
        (poses(lambda pose: pose * [-1, 1, -1, 1]), "behind the camera"),
        (lambda meta: meta["frames"][2].update(cx=meta["frames"][2]["cx"] + 64), "do not belong together"),
        # What is possible, but no person.
        (poses(lambda pose: pose * [1, 1, 1, 1000]), "span 0 pixels.*must both be in metres"),
        (spread(0.2), "but the person in the mask 60"),
        (spread(0.1), "but the person in the mask 60"),
        (spread(0), "span 0 pixels"),
        (lambda meta: meta.update(keypoints3d=[[3 * x for x in p] for p in meta["keypoints3d"]]), "apart|span"),
        (lambda meta: meta["frames"].__setitem__(2, meta["frames"][0]), r"frames 0 and 2 \(00.*same place"),
        (poses(lambda pose: pose * [1, 1, 1, 0] + [0, 0, 0, 3]), "same place"),
        (first("fl_x", 0), "more than 0"),
        (first("fl_y", -80.0), "more than 0"),
        (poses(lambda pose: pose * [2, 2, 2, 1]), "no rotation .lengths 2, 2, 2"),
        (poses(lambda pose: pose + [[0, 0.2, 0, 0], *[[0, 0, 0, 0]] * 3]), "no rotation"),
        (poses(lambda pose: pose * [-1, 1, 1, 1]), "mirrors the world"),
        (spread(0.5), "of the mask lies in the box"),
        # What is no such file.
        (first("fl_x", "80"), 'fl_x is "80", which is no number'),
        (first("cx", None), "cx is null, which is no number"),
        (first("transform_matrix", None), "transform_matrix is not made of rows of 4"),
        (poses(lambda pose: pose[:2]), "has 2 rows"),
        (poses(lambda pose: pose[:, :3]), "not made of rows of 4 numbers"),
        (lambda meta: meta["frames"][1]["transform_matrix"][0].__setitem__(3, "x"), 'an entry is "x"'),
        (lambda meta: meta["keypoints3d"].__setitem__(2, [0.1, 0.2]), "c in keypoints3d is .0.1, 0.2., but .* three"),
        (lambda meta: meta["keypoints3d"].__setitem__(2, None), "c in keypoints3d is null"),
        (lambda meta: meta["keypoints3d"].__setitem__(2, ["0", 0, 0]), "three finite numbers"),
        (lambda meta: meta.update(keypoint_names=5), "needs keypoint_names"),
        (lambda meta: meta.update(keypoint_names=list("abcdef"), keypoints3d={str(k): [0, 0, 0] for k in range(6)}),
         "needs keypoint_names"),
        (lambda meta: (meta["keypoint_names"].append("a"), meta["keypoints3d"].append([0, 0, 0])), "says a 2 times"),
        (lambda meta: meta.update(frames={"0": meta["frames"][0], "1": meta["frames"][1]}), "frames is no list"),
        (lambda meta: meta["frames"].__setitem__(1, "images/01.png"), "frame 1 has no file_path"),
        (lambda meta: meta["frames"][1].pop("file_path"), "frame 1 has no file_path"),
        (first("mask_path", None), "no mask_path"),
        (first("file_path", "transforms.json"), "is no picture that can be read"),
        (first("mask_path", "half.png"), "is no picture that can be read"),
        # Lenses and sizes that the pictures do not have.
        (lambda meta: meta.update(camera_model="OPENCV_FISHEYE", k1=0.1), "OPENCV_FISHEYE is none of.*undistort"),
        (first("camera_model", 3), "camera_model 3 is none of"),
        (first("k4", 0.01), "the lens has k4"),
        (first("k1", "0.1"), "k1 is .* no number"),
        (lambda meta: meta.update(w=128, h=128), "is 64x64, but its intrinsics are for 128x128"),
        (lambda meta: meta.pop("w") and meta.update(h=32), "for 64x32"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_person_is_said_in_one_sentence(folder, change, message):
    (folder / "half.png").write_bytes((folder / "images" / "00.png").read_bytes()[:200])
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
