"""A subject in People-Snapshot's form, made here: no licensed data."""

import pickle
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from nerfstudio_ext.cli.human_video import Snapshot
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import read_body
from nerfstudio_ext.human.people_snapshot import read_snapshot
from nerfstudio_ext.human.zju_layout import read_layout
from nerfstudio_ext.video.reader import open_source
from tests.human.test_smpl_body import SHAPES, contents, plain

FRAMES, SIZE = 4, 48


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Four masks, six poses; in the video the mask's square wanders."""
    import av

    folder = tmp_path_factory.mktemp("snapshot") / "subject"
    folder.mkdir()
    random = np.random.default_rng(0)
    masks = np.zeros((FRAMES, SIZE, SIZE), np.uint8)
    for k in range(FRAMES):
        masks[k, 10:30, 5 * k : 5 * k + 15] = 1
    with h5py.File(folder / "masks.hdf5", "w") as file:
        file["masks"] = masks
    with h5py.File(folder / "reconstructed_poses.hdf5", "w") as file:
        file["betas"] = random.normal(size=SHAPES)
        file["pose"] = 0.4 * random.normal(size=(FRAMES + 2, 72))
        file["trans"] = random.normal(size=(FRAMES + 2, 3)) * 0.1 + [0.0, 0.3, 2.6]
    numbers = {"f": [60.0, 61.0], "c": [24.0, 23.0], "k": [0.0] * 5, "rt": [0.0, 0.1, 0.0], "t": [0.1] * 3}
    camera = {f"camera_{key}": np.array(value) for key, value in numbers.items()}
    (folder / "camera.pkl").write_bytes(pickle.dumps({**camera, "width": SIZE, "height": SIZE}, protocol=2))
    with av.open(str(folder / "subject.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = SIZE
        for mask in masks:
            frame = np.repeat(200 * mask[..., None], 3, -1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    np.savez(folder.parent / "smpl.npz", **contents())
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(original, tmp_path / "subject")


def test_bodies_fall_where_their_files_put_them(original, tmp_path, capsys):
    """smplx's own convention through the subject's camera, against body.npz through annots.npy: pixel for pixel."""
    Snapshot(original, original.parent / "smpl.npz", tmp_path / "person", begin=1, step=2).main()
    assert "2 pictures and a body of 40 vertices" in capsys.readouterr().out
    layout, motion = read_layout(tmp_path / "person"), read_body(tmp_path / "person" / "body.npz")
    snapshot = read_snapshot(original)
    assert len(layout.pictures) == 2 and snapshot.frames == FRAMES and len(snapshot.poses) == FRAMES
    with h5py.File(original / "reconstructed_poses.hdf5") as file:
        betas, poses, shifts = (np.asarray(file[key]) for key in ("betas", "pose", "trans"))
    for k, frame in enumerate((1, 3)):
        # Six poses for four masks: the first two poses have none.
        posed = plain(poses[frame + 2].reshape(24, 3), betas) + shifts[frame + 2]
        local = Rotation.from_rotvec([0, 0.1, 0]).apply(posed) + 0.1
        wanted = local[:, :2] / local[:, 2:] * [60, 61] + [24, 23]
        np.testing.assert_allclose(layout.cameras[0].project(motion.vertices[k].double().numpy()), wanted, atol=2e-3)
        mask = np.asarray(Image.open(layout.masks()[k][0])) > 0
        assert np.array_equal(mask, snapshot.mask(frame)) and mask.sum() == 300
        picture = np.asarray(Image.open(layout.files()[k][0]))
        assert picture[mask].mean() > 150 and picture[~mask].mean() < 40
    assert open_source(original / "subject.mp4").num_frames == FRAMES


def test_the_person_stands_upright():
    """What is up in the camera (y down) is up along z."""
    from nerfstudio_ext.human.people_snapshot import UPRIGHT

    assert np.allclose(UPRIGHT @ [0, -1, 0], [0, 0, 1]) and np.linalg.det(UPRIGHT) == pytest.approx(1)


def rewrite(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def shorter(file):
    poses = np.asarray(file["pose"])
    del file["pose"]
    file["pose"] = poses[:2]


SPOILED = {
    "no video": (lambda f: (f / "subject.mp4").unlink(), "holds 0 videos"),
    "no camera": (lambda f: (f / "camera.pkl").unlink(), r"There is no .*camera\.pkl"),
    "a camera that runs": (lambda f: (f / "camera.pkl").write_bytes(pickle.dumps(print)), "no camera of People"),
    "no betas": (lambda f: rewrite(f / "reconstructed_poses.hdf5", lambda h: h.pop("betas")), "must hold betas"),
    "too few poses": (lambda f: rewrite(f / "reconstructed_poses.hdf5", shorter), "4 masks, 2 poses"),
    "no masks": (lambda f: (f / "masks.hdf5").unlink(), "must hold masks"),
}


@pytest.mark.parametrize("what", list(SPOILED))
def test_what_is_wrong_is_told(what, folder):
    spoil, sentence = SPOILED[what]
    spoil(folder)
    with pytest.raises(InputError, match=sentence):
        read_snapshot(folder)


def test_masks_of_another_size_and_bodies_of_another_family_are_refused(folder, original, tmp_path):
    masks = np.ones((FRAMES, 20, 20), np.uint8)
    rewrite(folder / "masks.hdf5", lambda file: (file.pop("masks"), file.create_dataset("masks", data=masks)))
    with pytest.raises(InputError, match="are 20x20, but its video 48x48"):
        Snapshot(folder, original.parent / "smpl.npz", tmp_path / "new").main()
    body = contents()
    small = {**body, "weights": body["weights"][:, :22], "J_regressor": body["J_regressor"][:22],
             "kintree_table": body["kintree_table"][:, :22], "posedirs": body["posedirs"][..., : 9 * 21]}  # fmt: skip
    np.savez(tmp_path / "small.npz", **small)
    with pytest.raises(InputError, match="a body with 22 joints needs 66"):
        Snapshot(original, tmp_path / "small.npz", tmp_path / "other").main()
