import math
from typing import get_args

import pytest
import torch

from nerfstudio_ext.human.keypoint_encoding import (
    EncodingMode,
    encode_points,
    encoded_width,
    keypoint_box,
    keypoint_weights,
    relative_directions,
    to_cameras,
)
from nerfstudio_ext.human.skinning import rotation_matrix

POINTS, KEYPOINTS, VIEWS, OCTAVES, SIGMA = 7, 5, 3, 3, 0.1
MODES = get_args(EncodingMode)


@pytest.fixture
def scene():
    torch.manual_seed(0)
    rotations = rotation_matrix(torch.randn(VIEWS, 3))
    poses = torch.cat([rotations, torch.randn(VIEWS, 3, 1)], dim=-1)
    return 0.2 * torch.randn(POINTS, 3), 0.2 * torch.randn(KEYPOINTS, 3), poses


def moved(points, keypoints, poses):
    """The same scene after one rigid motion of the world."""
    rotation, shift = rotation_matrix(torch.tensor([0.3, -1.1, 0.7])), torch.tensor([2.0, -1.0, 0.5])
    turned = poses[..., :3] @ rotation.T
    return points @ rotation.T + shift, keypoints @ rotation.T + shift, torch.cat(
        [turned, (poses[..., 3] - turned @ shift)[..., None]], dim=-1
    )  # fmt: skip


def slow(points, keypoints, poses):
    """The paper's encoding, number by number."""
    rows = []
    for pose in poses:
        rows.append([])
        for point in points:
            depth = [float((pose[:, :3] @ x + pose[:, 3])[2]) for x in (point, *keypoints)]
            offsets = [depth[0] - d for d in depth[1:]]
            weights = [math.exp(-(float((point - k).norm()) ** 2) / (2 * SIGMA**2)) for k in keypoints]
            bands = [list(offsets)]
            for octave in range(OCTAVES):
                for wave in (math.sin, math.cos):
                    bands.append([wave(math.pi * 2**octave * d) for d in offsets])
            rows[-1].append([w * value for band in bands for w, value in zip(weights, band)])
    return torch.tensor(rows)


def test_the_encoding_is_the_one_of_the_paper(scene):
    code = encode_points(*scene, "rel_z_decay", OCTAVES, SIGMA)
    assert code.shape == (VIEWS, POINTS, KEYPOINTS * 7)
    torch.testing.assert_close(code, slow(*scene), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_widths_and_points_of_all_modes(scene, mode):
    """Each point has its own code: permuting points permutes codes."""
    points, keypoints, poses = scene
    code = encode_points(points, keypoints, poses, mode, OCTAVES, SIGMA)
    assert code.shape == (VIEWS, POINTS, encoded_width(mode, KEYPOINTS, OCTAVES))
    order = torch.randperm(POINTS)
    assert torch.equal(encode_points(points[order], keypoints, poses, mode, OCTAVES, SIGMA), code[:, order])


@pytest.mark.parametrize("mode", MODES)
def test_which_modes_survive_a_rigid_motion_of_the_world(scene, mode):
    before, after = (encode_points(*s, mode, OCTAVES, SIGMA) for s in (scene, moved(*scene)))
    if "world" in mode:
        assert float((before - after).abs().max()) > 0.1
    else:
        torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_plain_relative_depth_is_the_fading_one_without_weights(scene):
    points, keypoints, _ = scene
    plain, fading = (encode_points(*scene, mode, OCTAVES, SIGMA) for mode in ("rel_z", "rel_z_decay"))
    weights = keypoint_weights(points, keypoints, SIGMA).repeat(1, 7)
    torch.testing.assert_close(plain * weights, fading)


def test_a_keypoint_says_all_about_itself_and_nothing_far_away():
    keypoints = torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    pose = torch.eye(3, 4)[None]
    at, beside, far = encode_points(
        torch.tensor([[0.0, 0, 0], [SIGMA, 0, 0], [0.0, 2.0, 0]]), keypoints, pose, "rel_z_decay", OCTAVES, SIGMA
    )[0].reshape(3, 7, 2)  # fmt: skip
    assert at[:, 0].tolist() == [0, 0, 1, 0, 1, 0, 1]
    assert beside[2, 0] == pytest.approx(math.exp(-0.5))
    assert not bool(far.any())


def test_directions_in_the_frame_of_the_camera_do_not_depend_on_the_world(scene):
    points, keypoints, poses = scene
    directions = torch.nn.functional.normalize(torch.randn(POINTS, 3), dim=-1)
    after_points, _, after_poses = moved(points, keypoints, poses)
    after_directions = directions @ rotation_matrix(torch.tensor([0.3, -1.1, 0.7])).T
    for frame in ("camera", "world"):
        before = relative_directions(points, directions, poses, frame)
        after = relative_directions(after_points, after_directions, after_poses, frame)
        same = torch.allclose(before, after, atol=1e-4)
        assert same == (frame == "camera")
    # A view that looks along the wanted ray differs in nothing.
    centre = -(poses[0, :, :3].T @ poses[0, :, 3])
    own = torch.nn.functional.normalize(points - centre, dim=-1)
    zero = relative_directions(points, own, poses, "camera")[0]
    torch.testing.assert_close(zero[:, 3], torch.ones(POINTS))
    assert float(zero[:, :3].norm(dim=-1).max()) < 1.01


def test_points_in_camera_frames(scene):
    points, _, poses = scene
    torch.testing.assert_close(to_cameras(points, poses)[1, 2], poses[1, :, :3] @ points[2] + poses[1, :, 3])


def test_box_leaves_room_for_head_and_hands():
    box = keypoint_box(torch.tensor([[0.0, 0.0, -1.0], [0.1, 0.0, 1.0]]))
    torch.testing.assert_close(box, torch.tensor([[-0.25, -0.25, -1.4], [0.35, 0.25, 1.4]]))
