import numpy as np
import pytest
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import BodyMotion, Build, read_body, read_frame_ids, write_body


def motion(**changes):
    torch.manual_seed(0)
    values = dict(
        vertices=torch.rand(3, 20, 3),
        faces=torch.tensor([[0, 1, 2], [3, 4, 19]]),
        root_rotation=torch.rand(3, 3),
        root_translation=torch.rand(3, 3),
    )
    return BodyMotion(**{**values, **changes})


def test_round_trip(tmp_path):
    write_body(motion(), tmp_path / "body.npz")
    again = read_body(tmp_path / "body.npz")
    for name in ("vertices", "faces", "root_rotation", "root_translation"):
        assert torch.equal(getattr(again, name), getattr(motion(), name))


def test_the_pose_at_rest_is_kept_and_stands_where_the_body_does(tmp_path):
    rest = torch.rand(20, 3)
    turn, shift = torch.tensor([[0.0, 0.0, torch.pi / 2]]).repeat(3, 1), torch.tensor([[1.0, 0.0, 0.0]]).repeat(3, 1)
    write_body(motion(rest=rest, root_rotation=turn, root_translation=shift), tmp_path / "body.npz")
    again = read_body(tmp_path / "body.npz")
    assert torch.equal(again.at([1]).rest, rest)
    still = again.resting()
    wanted = torch.stack([1 - rest[:, 1], rest[:, 0], rest[:, 2]], dim=-1)
    torch.testing.assert_close(still.vertices, wanted[None])
    with pytest.raises(InputError, match="at rest of this body is not known"):
        motion().resting()
    with pytest.raises(InputError, match="rest must be"):
        motion(rest=rest[:5]).check("here")


@pytest.mark.parametrize(
    "changes,message",
    [
        (dict(vertices=1000 * torch.rand(3, 20, 3)), "must be in metres"),
        (dict(vertices=torch.rand(1, 20, 3).expand(3, -1, -1)), "same in all 3 frames"),
        (dict(vertices=torch.rand(1, 20, 3) + 4e-5 * torch.rand(3, 20, 3)), "same in all 3 frames"),
        (dict(root_rotation=torch.full((3, 3), float("nan"))), "Rh of frame 0"),
        (dict(root_translation=torch.zeros(2, 3)), r"Th is \[2, 3\]"),
        (dict(faces=torch.tensor([[0, 1, 20]])), "indices of its 20 vertices"),
        (dict(vertices=torch.rand(3, 20, 2)), r"\[frames, vertices, 3\]"),
    ],
)
def test_what_cannot_be_a_motion_is_refused(tmp_path, changes, message):
    write_body(motion(**changes), tmp_path / "body.npz")
    with pytest.raises(InputError, match=message):
        read_body(tmp_path / "body.npz")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="There is no"):
        read_body(tmp_path / "body.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match=r"no \.npz of plain numbers"):
        read_body(tmp_path / "text.npz")
    np.savez(tmp_path / "half.npz", vertices=np.zeros((1, 3, 3)))
    with pytest.raises(InputError, match="lacks faces, Rh, Th"):
        read_body(tmp_path / "half.npz")
    write_body(motion(), tmp_path / "whole.npz", frame_ids=np.zeros((3, 1), dtype=int))
    with pytest.raises(InputError, match="one whole number for each frame"):
        read_frame_ids(tmp_path / "whole.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "spoiled.npz").write_bytes(whole[:200] + bytes(60) + whole[260:])
    for name in ("single", "half", "spoiled"):
        for read in (read_body, read_frame_ids):
            if (name, read) != ("spoiled", read_frame_ids):  # its own array is whole
                with pytest.raises(InputError, match=rf"{name}\.npz is no \.npz of plain numbers"):
                    read(tmp_path / f"{name}.npz")


def test_the_build_is_kept(tmp_path):
    build = Build({"gender": 0.25, "weight": 0.75}, 1.1)
    write_body(motion(build=build), tmp_path / "body.npz")
    again = read_body(tmp_path / "body.npz")
    assert again.build == build and again.at([1]).build == build
    write_body(motion(), tmp_path / "body.npz")
    assert read_body(tmp_path / "body.npz").build is None
