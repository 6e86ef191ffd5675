from pathlib import Path

import numpy as np
import pytest
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.photo_checks import check_body, check_view
from nerfstudio_ext.human.photo_frames import PhotoFrame

STANDING = {
    "pelvis": (0.0, 0.0, 0.0), "left_hip": (0.11, 0.0, -0.01), "right_hip": (-0.11, 0.0, -0.01),
    "spine1": (0.0, 0.02, 0.08), "left_knee": (0.12, -0.02, -0.42), "right_knee": (-0.12, -0.02, -0.42),
    "spine2": (0.0, 0.02, 0.16), "left_ankle": (0.12, 0.04, -0.84), "right_ankle": (-0.12, 0.04, -0.84),
    "spine3": (0.0, 0.02, 0.38), "left_foot": (0.14, -0.09, -0.9), "right_foot": (-0.14, -0.09, -0.9),
    "neck": (0.0, 0.0, 0.56), "left_collar": (0.03, 0.0, 0.5), "right_collar": (-0.03, 0.0, 0.5),
    "head": (0.0, -0.03, 0.66), "left_shoulder": (0.18, 0.02, 0.49), "right_shoulder": (-0.18, 0.02, 0.49),
    "left_elbow": (0.28, 0.03, 0.25), "right_elbow": (-0.28, 0.03, 0.25), "left_wrist": (0.33, -0.04, 0.03),
    "right_wrist": (-0.33, -0.04, 0.03), "left_hand": (0.35, -0.08, -0.07), "right_hand": (-0.35, -0.08, -0.07),
}  # fmt: skip
"""A person who faces -y, left is +x, in metres."""
NAMES = tuple(STANDING)


def check(places):
    check_body(torch.tensor([places[name] for name in NAMES]), NAMES, "photos")


def other(name):
    """The same joint of the other side."""
    side, _, joint = name.partition("_")
    return {"left": "right_", "right": "left_"}.get(side, side) + joint


def turned(names, joint, axis, degrees):
    """The standing person with some joints turned about another one."""
    angle, (a, b) = np.radians(degrees), [k for k in range(3) if k != axis]
    found = {name: np.array(place) for name, place in STANDING.items()}
    for name in names:
        away = found[name] - np.array(STANDING[joint])
        away[[a, b]] = [np.cos(angle) * away[a] - np.sin(angle) * away[b],
                        np.sin(angle) * away[a] + np.cos(angle) * away[b]]  # fmt: skip
        found[name] = np.array(STANDING[joint]) + away
    return {name: place.tolist() for name, place in found.items()}


UPPER = [name for name in NAMES if not any(part in name for part in ("pelvis", "hip", "knee", "ankle", "foot"))]
SHANKS = {side: [f"{side}_ankle", f"{side}_foot"] for side in ("left", "right")}


def on_the_knees():
    """Shins point backwards, and the feet with them."""
    left, right = (turned(SHANKS[side], f"{side}_knee", 0, 90) for side in SHANKS)
    assert left["left_ankle"][1] > 0.3
    return {name: (left if name.startswith("left") else right)[name] for name in NAMES}


POSES = {
    "standing": STANDING,
    "a child": {name: [0.45 * x for x in place] for name, place in STANDING.items()},
    "touching the ground": turned(UPPER, "pelvis", 0, 140),
    "leaning back": turned(UPPER, "pelvis", 0, -60),
    "looking over the shoulder": turned(UPPER, "pelvis", 2, 80),
    "on the knees": on_the_knees(),
    "upside down": {name: (x, -y, -z) for name, (x, y, z) in STANDING.items()},
}


@pytest.mark.parametrize("pose", POSES)
def test_bodies_pass_in_wide_poses(pose):
    check(POSES[pose])


WRONG = {
    "reversed": (dict(zip(NAMES, reversed(STANDING.values()))), "order of keypoint_names"),
    "moved on by one": (dict(zip(NAMES, [*list(STANDING.values())[1:], STANDING["pelvis"]])), "order of keypoint"),
    "in the alphabet's order": (dict(zip(NAMES, (STANDING[name] for name in sorted(NAMES)))), "order of keypoint"),
    "left and right": ({name: STANDING[other(name)] for name in NAMES}, "both feet point backwards"),
    "left and right legs": (
        {name: STANDING[name if name in UPPER else other(name)] for name in NAMES}, "face opposite ways",
    ),
    "a knee for an ankle": (
        {**STANDING, "left_knee": STANDING["left_ankle"], "left_ankle": STANDING["left_knee"]}, "left thigh .* long",
    ),
    "wrists": (
        {**STANDING, "left_wrist": STANDING["right_wrist"], "right_wrist": STANDING["left_wrist"]}, "which no body has",
    ),
    "a third of a body": ({name: [0.3 * x for x in place] for name, place in STANDING.items()}, "must be in metres"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_orders_are_refused(mistake):
    places, message = WRONG[mistake]
    with pytest.raises(InputError, match=message):
        check(places)


def camera(focal, shift=0.0):
    """Three metres before the person, 200 pixels tall."""
    pose = torch.tensor([[1.0, 0, 0, shift], [0, 0, -1, -3], [0, 1, 0, 0]])
    matrix = np.array([[focal, 0, 100], [0, focal, 100], [0, 0, 1.0]])
    return PhotoFrame("photo", Path("a.png"), Path("b.png"), matrix, np.zeros(5), pose, {})


def test_masks_belong_to_the_body():
    """A person of 1.56 m between the outermost joints is 126 pixels tall at a focal length of 240."""
    points, mask = torch.tensor(list(STANDING.values())), np.zeros((200, 200), bool)
    mask[40:190, 70:130] = True
    check_view(points, NAMES, camera(240), mask)
    for focal in (80, 480):
        with pytest.raises(InputError, match=r"keypoints span .* pixels, but the person in the mask 150"):
            check_view(points, NAMES, camera(focal), mask)
    with pytest.raises(InputError, match="0 of 24 keypoints fall on the person"):
        check_view(points, NAMES, camera(240, 1.5), mask)
    with pytest.raises(InputError, match="behind the camera"):
        check_view(points - torch.tensor([0.0, 3.0, 0.0]), NAMES, camera(240), mask)
    mask[40:190, 135:195] = True
    with pytest.raises(InputError, match=r"only \d\d% of the mask"):
        check_view(points, NAMES, camera(240), mask)


def test_sets_that_are_no_whole_body_pass():
    check_body(torch.zeros(3, 3), ("left_hip", "right_hip", "nose"), "photos")
