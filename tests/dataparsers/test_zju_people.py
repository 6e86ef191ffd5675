import numpy as np
import pytest
import torch
from PIL import Image

from dataparsers.zju_people import TRAINED, ZjuPeopleDataParserConfig
from nerfstudio_ext.data.people import PeopleDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.subject import SourceViews
from nerfstudio_ext.procedural.rigs import rig_poses

CAMERAS, FRAMES, SIDE = 4, 5, 24
FOCAL = 30.0


def write_person(folder, seed):
    """Random pictures of a square person, and 24 joints around the origin."""
    random = np.random.default_rng(seed)
    poses = rig_poses("ring", CAMERAS, 2.8).double().numpy()
    rotations = [(pose[:, :3] * [1.0, -1.0, -1.0]).T for pose in poses]
    translations = [-1000 * rotation @ pose[:, 3:] for rotation, pose in zip(rotations, poses)]
    calibration = np.array([[FOCAL, 0, SIDE / 2 - 0.5], [0, FOCAL, SIDE / 2 - 0.5], [0, 0, 1]])
    names = [[f"Camera_B{c + 1}/{f:06d}.png" for c in range(CAMERAS)] for f in range(FRAMES)]
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4:-4, 4:-4] = 1
    for row in names:
        for name in row:
            for place, array in ((folder / name, random.integers(0, 255, (SIDE, SIDE, 3), np.uint8)),
                                 (folder / "mask" / name, mask)):  # fmt: skip
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(place)
    cams = {"K": [calibration] * CAMERAS, "D": [np.zeros((5, 1))] * CAMERAS, "R": rotations, "T": translations}
    annots = {"cams": cams, "ims": [{"ims": row} for row in names]}
    np.save(folder / "annots.npy", np.array(annots, dtype=object), allow_pickle=True)
    (folder / "joints3d").mkdir()
    for frame in range(FRAMES):
        np.save(folder / "joints3d" / f"{frame}.npy", random.uniform(-0.6, 0.6, (24, 3)))


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("one", "two", "three")):
        write_person(tmp_path / name, seed)
    return tmp_path


def parse(folder, split="train", **changes):
    options = {"train_people": ("one", "two"), "test_people": ("three",), "sources": "0,2", "targets": "rest",
               "frame_step": 2, "eval_step": 3, "size": SIDE}  # fmt: skip
    return ZjuPeopleDataParserConfig(data=folder, **{**options, **changes}).setup().get_dataparser_outputs(split)


def test_people_are_split_and_every_moment_counts_as_one(folder):
    train, test = parse(folder), parse(folder, "test")
    store = train.metadata["subjects"]
    names = [f"{who}_{frame:06d}" for who in ("one", "two") for frame in (0, 2, 4)]
    assert [store.name(k) for k in range(len(store))] == [*names, "three_000000", "three_000003"]
    assert train.metadata["views"] == [(k, camera) for k in range(6) for camera in range(CAMERAS)]
    assert test.metadata["views"] == [(k, camera) for k in (6, 7) for camera in (1, 3)]
    assert test.metadata["sources"][6] == (0, 2) and test.metadata["shown"] == 6


def test_pictures_cameras_and_joints_belong_together(folder):
    store = parse(folder).metadata["subjects"]
    subject, cameras = store.subject(4), store.cameras(4)
    with Image.open(folder / "two" / "Camera_B2" / "000002.png") as picture:
        wanted = np.asarray(picture)
    inside = subject.mask[1].numpy()
    assert inside.sum() == 16 * 16 and not subject.rgb[1][~subject.mask[1]].any()
    assert np.array_equal(subject.rgb[1].numpy()[inside], wanted[inside])
    torch.testing.assert_close(
        subject.keypoints, torch.from_numpy(np.load(folder / "two" / "joints3d" / "2.npy")).float()
    )
    torch.testing.assert_close(cameras.camera_to_worlds, rig_poses("ring", CAMERAS, 2.8))
    pixels, depth = SourceViews.of(subject, range(CAMERAS), torch.device("cpu")).project(torch.zeros(1, 3))
    torch.testing.assert_close(pixels, torch.full((CAMERAS, 1, 2), SIDE / 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(depth, torch.full((CAMERAS, 1), 2.8), atol=1e-4, rtol=0)


def test_smaller_pictures_see_the_same(folder):
    subject = parse(folder, size=SIDE // 2).metadata["subjects"].subject(0)
    assert subject.rgb.shape == (CAMERAS, SIDE // 2, SIDE // 2, 3)
    torch.testing.assert_close(subject.intrinsics[0], torch.tensor([FOCAL, FOCAL, SIDE / 2, SIDE / 2]) / 2)


def test_scores_are_about_the_body_where_there_is_one(folder):
    """Without vertices about the joints and a quarter of a metre, with them about these and five centimetres."""
    (folder / "three" / "vertices").mkdir()
    np.save(folder / "three" / "vertices" / "3.npy", np.array([[-0.2, -0.1, -0.5], [0.2, 0.1, 0.4]]))
    outputs = parse(folder, "test")
    store, dataset = outputs.metadata["subjects"], PeopleDataset(outputs)
    joints = store.subject(6).keypoints
    torch.testing.assert_close(store.scored_box(6)[1], joints.amax(0) + 0.25, atol=0.2, rtol=0)
    torch.testing.assert_close(store.scored_box(7), torch.tensor([[-0.25, -0.15, -0.55], [0.25, 0.15, 0.45]]))
    areas = [float(dataset[k]["box_mask"].float().sum()) for k in (0, 2)]
    # At the ring's distance a pixel is 2.8 / 30 m wide.
    assert areas[1] < 0.5 * areas[0] and 0 < areas[1] < (0.7 * 1.2) * (FOCAL / 2.3) ** 2
    np.save(folder / "three" / "vertices" / "3.npy", np.zeros((4, 2)))
    with pytest.raises(InputError, match=r"3\.npy holds \[4, 2\]"):
        store.scored_box(7)


def test_the_official_split_has_the_papers_numbers_of_frames():
    counts = [len(range(*frames)) for frames in TRAINED.values()]
    assert counts == [60, 67, 10, 50, 50, 50, 54]
    assert not set(TRAINED) & set(ZjuPeopleDataParserConfig().test_people)
    assert sum(len(range(0, count, 30)) for count in (654, 658, 859)) == 73


def remove(path):
    return lambda folder: (folder / path).unlink()


@pytest.mark.parametrize(
    "spoil,options,message",
    [
        (None, {"data": None}, "give --data"),
        (None, {"train_people": ("one", "three")}, "three: people to test with"),
        (None, {"train_people": ("four",)}, r"no .*four/annots\.npy"),
        (None, {"train_people": ()}, "one person to train on"),
        (None, {"targets": "2"}, "that are no sources"),
        (None, {"targets": "1,9"}, "from 0 to 3"),
        (None, {"targets": "some"}, "the word rest"),
        (remove("one/joints3d/2.npy"), {}, r"no .*joints3d/2\.npy"),
        (remove("one/mask/Camera_B2/000000.png"), {}, r"no .*mask/Camera_B2/000000\.png"),
        (lambda f: np.save(f / "two/joints3d/0.npy", np.zeros((17, 3))), {}, r"it must be \[24, 3\]"),
        (lambda f: np.save(f / "two/joints3d/0.npy", 1000 * np.eye(24, 3)), {}, "not in metres"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_one_sentence(folder, spoil, options, message):
    if spoil is not None:
        spoil(folder)
    with pytest.raises(InputError, match=message) as error:
        parse(**{"folder": folder, **options} if "data" not in options else {"folder": None})
    assert "\n" not in str(error.value)
