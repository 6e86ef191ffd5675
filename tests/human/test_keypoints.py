import json

import numpy as np
import pytest

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.keypoints import NAMES, SKELETONS, named, read_keypoints, read_photo_keypoints

FRAMES, CAMERAS = 3, 2


@pytest.fixture
def values():
    random = np.random.default_rng(0)
    pixels, sure = random.uniform(5, 90, (FRAMES, CAMERAS, 17, 2)), random.uniform(0.5, 1, (FRAMES, CAMERAS, 17, 1))
    return np.concatenate([pixels, sure], axis=-1)


def small(person):
    """A bystander: sure, but far away."""
    return person * [0.1, 0.1, 1.0]


def openpose(folder, values):
    for camera in range(CAMERAS):
        (folder / f"cam{9 + camera}").mkdir(parents=True)
        for frame in range(FRAMES):
            people = [small(values[frame, camera]), values[frame, camera]]
            content = {"people": [{"pose_keypoints_2d": person.ravel().tolist()} for person in people]}
            (folder / f"cam{9 + camera}" / f"x_{frame:03d}_keypoints.json").write_text(json.dumps(content))


def mmpose(folder, values):
    folder.mkdir()
    for camera in range(CAMERAS):
        info = []
        for frame in range(FRAMES):
            people = [values[frame, camera], small(values[frame, camera])]
            instances = [{"keypoints": p[:, :2].tolist(), "keypoint_scores": p[:, 2].tolist()} for p in people]
            info.append({"frame_id": frame + 1, "instances": instances})
        (folder / f"results_{camera}.json").write_text(json.dumps({"instance_info": info}))


def coco(folder, values, annotations):
    folder.mkdir()
    for camera in range(CAMERAS):
        rows = [{"image_id": frame, "keypoints": values[frame, camera].ravel().tolist()} for frame in range(FRAMES)]
        images = [{"id": frame} for frame in range(FRAMES)]
        content = {"images": images, "annotations": rows} if annotations else rows
        (folder / f"cam{camera}.json").write_text(json.dumps(content))


WRITERS = {
    "OpenPose": openpose,
    "RTMPose": mmpose,
    "COCO results": lambda folder, values: coco(folder, values, False),
    "COCO annotations": lambda folder, values: coco(folder, values, True),
    "npz": lambda folder, values: np.savez(folder, kpts2d=values.transpose(1, 0, 2, 3)),
}


@pytest.mark.parametrize("form", list(WRITERS))
def test_all_forms_hold_the_same(form, values, tmp_path):
    """Cameras in the order of their numbers (9 before 10), frames in order, and the main person of several."""
    path = tmp_path / ("keypoints.npz" if form == "npz" else "keypoints")
    WRITERS[form](path, values)
    found = read_keypoints(path, None)
    np.testing.assert_allclose(found.values, values)
    assert found.names == SKELETONS["coco17"]
    np.testing.assert_allclose(found.scaled(2).values[..., 1], 2 * values[..., 1])


def test_skeletons_name_the_same_joints():
    assert [len(SKELETONS[name]) for name in ("coco17", "body25", "body25b", "halpe26")] == [17, 25, 25, 26]
    assert all(len(set(joints)) == len(joints) for joints in SKELETONS.values())
    assert SKELETONS["body25"][4] == "right_wrist" and SKELETONS["body25b"][10] == "right_wrist"
    assert SKELETONS["halpe26"][19] == "mid_hip" and SKELETONS["body25"][8] == "mid_hip"
    assert set(SKELETONS["coco17"]) < set(NAMES)


def test_what_is_not_seen_counts_nothing():
    values = np.ones((1, 1, 17, 3))
    values[0, 0, 3] = np.nan
    values[0, 0, 4, 2] = 0
    found = named(values, "coco17", "it")
    assert not found.values[0, 0, 3:5].any() and found.values[0, 0, 5].all()


def test_wrong_files_are_named(values, tmp_path):
    with pytest.raises(InputError, match="25 joints, which fits body25 and body25b"):
        named(np.ones((1, 1, 25, 3)), None, "it")
    with pytest.raises(InputError, match="not --skeleton body25:"):
        named(values, "body25", "it")
    with pytest.raises(InputError, match="neither an"):
        read_keypoints(tmp_path / "gone.json", None)
    with pytest.raises(InputError, match="one per camera"):
        read_keypoints(tmp_path, None)
    openpose(tmp_path / "openpose", values)
    (tmp_path / "openpose" / "cam9" / "x_000_keypoints.json").unlink()
    with pytest.raises(InputError, match="differ in frames or joints: cam9 2x17, cam10 3x17"):
        read_keypoints(tmp_path / "openpose", None)
    (tmp_path / "openpose" / "cam9" / "x_001_keypoints.json").write_text("{")
    with pytest.raises(InputError, match=r"x_001_keypoints\.json cannot be read"):
        read_keypoints(tmp_path / "openpose", None)
    (tmp_path / "openpose" / "cam9" / "x_001_keypoints.json").write_text('{"persons": []}')
    with pytest.raises(InputError, match="no file of OpenPose"):
        read_keypoints(tmp_path / "openpose", None)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "cam.json").write_text('{"pictures": 1}')
    with pytest.raises(InputError, match="neither of MMPose"):
        read_keypoints(tmp_path / "one", None)
    np.savez(tmp_path / "other.npz", points=1)
    with pytest.raises(InputError, match="must hold kpts2d"):
        read_keypoints(tmp_path / "other.npz", None)
    np.savez(tmp_path / "flat.npz", kpts2d=values[0])
    with pytest.raises(InputError, match=r"kpts2d is .2, 17, 3., but must be numbers"):
        read_keypoints(tmp_path / "flat.npz", None)
    np.save(tmp_path / "single.npy", values)
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    np.savez(tmp_path / "whole.npz", kpts2d=values.transpose(1, 0, 2, 3))
    (tmp_path / "half.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:700])
    for name in ("single", "half"):
        with pytest.raises(InputError, match=rf"{name}\.npz is no \.npz of plain numbers"):
            read_keypoints(tmp_path / f"{name}.npz", None)


@pytest.mark.parametrize("form", ["RTMPose", "COCO results", "AlphaPose"])
def test_frames_that_a_file_leaves_out_keep_their_place(form, tmp_path):
    """Each camera misses another frame, also the first and the last: cameras stay paired by number."""
    values = np.random.default_rng(0).uniform(5, 90, (12, 2, 17, 3))
    values[..., 2] = 1
    for camera, missed in enumerate(((2, 11), (0, 5))):
        rows = []
        for frame in (frame for frame in range(12) if frame not in missed):
            person = values[frame, camera]
            if form == "RTMPose":
                rows.append({"frame_id": frame + 1, "instances": instances(person)})
            else:
                name = frame if form == "COCO results" else f"{frame}.jpg"
                rows.append({"image_id": name, "keypoints": person.ravel().tolist()})
        values[list(missed), camera] = 0
        content = {"instance_info": rows} if form == "RTMPose" else rows
        (tmp_path / f"cam{camera}.json").write_text(json.dumps(content))
    np.testing.assert_allclose(read_keypoints(tmp_path, None).values, values)


def test_numbers_that_begin_nowhere_are_refused(tmp_path):
    for name, message in ((100, "number their frames from 100 on"), ("left", "calls a picture left")):
        (tmp_path / "cam.json").write_text(json.dumps([{"image_id": name, "keypoints": [1, 1, 1] * 17}]))
        with pytest.raises(InputError, match=message):
            read_keypoints(tmp_path, None)


def instances(*people):
    return [{"keypoints": p[:, :2].tolist(), "keypoint_scores": p[:, 2].tolist()} for p in people]


PHOTO_FILES = {
    "OpenPose": (
        "_keypoints",
        lambda p: {"people": [{"pose_keypoints_2d": x.ravel().tolist()} for x in (small(p), p)]},
    ),
    "RTMPose": ("", lambda p: instances(small(p), p)),
    "RTMPose with its meta": ("", lambda p: {"instance_info": instances(p)}),
    "COCO": ("", lambda p: [{"image_id": 7, "keypoints": p.ravel().tolist()}]),
}


@pytest.mark.parametrize("kind", list(PHOTO_FILES))
def test_photos_have_the_file_that_is_called_like_them(tmp_path, values, kind):
    """In the order of the photos, not of the names; other files do not matter."""
    end, content = PHOTO_FILES[kind]
    people = dict(zip(("b", "a", "other"), values[:, 0]))
    for name, person in people.items():
        (tmp_path / f"{name}{end}.json").write_text(json.dumps(content(person)))
    found = read_photo_keypoints(tmp_path, ["images/b.jpg", "images/a.png"], None)
    np.testing.assert_allclose(found.values, np.stack([people["b"], people["a"]])[None])
    with pytest.raises(InputError, match=r"neither c_keypoints\.json nor c\.json"):
        read_photo_keypoints(tmp_path, ["b.jpg", "c.jpg"], None)


@pytest.mark.parametrize(
    "content,message",
    [
        ([{"image_id": k, "keypoints": [1, 1, 1] * 17} for k in (0, 1)], "2 pictures, but is the file of one photo"),
        ({"people": []}, "shows no one"),
        ([{"keypoint_scores": [1.0]}], "needs keypoints and keypoint_scores"),
        ({"people": [{"pose_keypoints_2d": [1, 1, 1] * 25}]}, "differ in the number of joints: a.jpg 17, b.jpg 25"),
    ],
)
def test_photos_with_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(json.dumps([{"image_id": 0, "keypoints": [1, 1, 1] * 17}]))
    (tmp_path / "b.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_photo_keypoints(tmp_path, ["a.jpg", "b.jpg"], None)
