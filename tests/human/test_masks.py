import cv2
import numpy as np
import pytest

from nerfstudio_ext.human.masks import background, body_region, differs, person_mask, touched, trunk_length

SHAPE = (120, 160)
FRAMES = 12


def room():
    """A coloured room with structure."""
    random = np.random.default_rng(0)
    small = random.integers(60, 200, (6, 5, 3)).astype(np.uint8)
    return cv2.resize(small, SHAPE[::-1], interpolation=cv2.INTER_CUBIC)


def joints_at(x, y=20, seen=1.0):
    """A standing person's joints about a place; the trunk is 30 pixels long."""
    places = {
        "nose": (0, 0), "left_shoulder": (7, 12), "right_shoulder": (-7, 12), "left_hip": (5, 42),
        "right_hip": (-5, 42), "left_elbow": (12, 26), "left_wrist": (12, 38), "right_elbow": (-12, 26),
        "right_wrist": (-12, 38),
        "left_knee": (5, 62), "left_ankle": (5, 80), "right_knee": (-5, 62), "right_ankle": (-5, 80),
    }  # fmt: skip
    return {name: np.array([x + dx, y + dy, seen]) for name, (dx, dy) in places.items()}


def clip(places, noise=3.0):
    """Pictures of a person in the room, the true masks, and the joints; a shadow lies beside the feet."""
    random = np.random.default_rng(1)
    pictures, masks, joints = [], [], []
    for x in places:
        found = joints_at(x)
        mask = body_region(found, 30.0, SHAPE, 0.8)
        picture = room().astype(float)
        picture[104:112, max(0, x - 24) : x + 24] *= 0.75
        picture[mask] = (200, 30, 40)
        pictures.append((picture + random.normal(0, noise, picture.shape)).clip(0, 255).astype(np.uint8))
        masks.append(mask)
        joints.append(found)
    return np.stack(pictures), masks, joints


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_who_walks_through_is_found_without_joints():
    pictures, masks, _ = clip(np.linspace(15, 145, FRAMES).astype(int))
    behind = background(pictures, None)
    assert behind.known.all()
    plain = np.abs(behind.colour.astype(int) - room())
    assert plain.mean() < 3 and 1.5 < np.median(behind.noise) < 8
    for picture, mask in zip(pictures, masks):
        found = person_mask(picture, behind, 5.0, None, float("nan"))
        assert iou(found, mask) > 0.93, "the shadow is no part of it, and neither is the noise"


def test_who_stays_is_found_by_the_joints():
    """Half of the clip in one place: the median alone takes the person for background there."""
    pictures, masks, joints = clip([30] * 8 + [45, 55, 60, 60])
    alone = background(pictures, None)
    assert iou(person_mask(pictures[0], alone, 5.0, None, float("nan")), masks[0]) < 0.3
    trunk = trunk_length(joints)
    assert trunk == pytest.approx(30.0)
    covered = np.stack([body_region(place, trunk, SHAPE, 1.5) for place in joints])
    behind = background(pictures, covered)
    assert np.abs(behind.colour.astype(int) - room())[behind.known].mean() < 4
    for k in (0, 3, 9, 11):
        assert iou(person_mask(pictures[k], behind, 5.0, joints[k], trunk), masks[k]) > 0.85


def test_who_never_leaves_is_what_lies_about_the_joints():
    pictures, masks, joints = clip([40] * FRAMES)
    covered = np.stack([body_region(place, 30.0, SHAPE, 1.5) for place in joints])
    behind = background(pictures, covered)
    assert 0.05 < (~behind.known).mean() < 0.5
    assert iou(person_mask(pictures[0], behind, 5.0, joints[0], 30.0), masks[0]) > 0.8


def test_bystanders_are_left_out():
    pictures, masks, joints = clip(np.linspace(15, 50, FRAMES).astype(int))
    pictures[3, 10:100, 70:90] = (20, 220, 60)
    behind = background(pictures, np.stack([body_region(place, 30.0, SHAPE, 1.5) for place in joints]))
    assert differs(pictures[3], behind, 5.0)[20:90, 75:85].all(), "somebody came in, larger than the person"
    assert iou(person_mask(pictures[3], behind, 5.0, joints[3], 30.0), masks[3]) > 0.88


def test_a_head_that_hangs_on_nothing_visible_is_kept():
    """The neck has the background's colour."""
    pictures, masks, joints = clip(np.linspace(15, 145, FRAMES).astype(int))
    behind = background(pictures, np.stack([body_region(place, 30.0, SHAPE, 1.5) for place in joints]))
    gap = np.zeros(SHAPE, dtype=bool)
    gap[24:36] = True
    picture = np.where(gap[..., None], behind.colour, pictures[5])
    found = person_mask(picture, behind, 5.0, joints[5], 30.0)
    above = np.zeros(SHAPE, dtype=bool)
    above[:23] = True
    assert iou(found & above, masks[5] & above) > 0.8
    alone = person_mask(picture, behind, 5.0, None, float("nan"))
    assert not (alone & above).any(), "without joints the largest part alone is the person"


def test_a_head_seen_from_behind_is_part_of_the_body():
    joints = joints_at(40)
    behind = {name: point for name, point in joints.items() if name != "nose"}
    assert body_region(behind, 30.0, SHAPE, 1.0)[15:25, 36:44].all()
    assert not body_region(joints_at(40, seen=0.1), 30.0, SHAPE, 1.0).any(), "unsure joints do not count"
    assert np.isnan(trunk_length([behind | {"left_hip": np.zeros(3)}]))


def test_an_empty_picture_has_no_mask():
    pictures, _, _ = clip(np.linspace(15, 145, FRAMES).astype(int))
    assert not person_mask(room(), background(pictures, None), 5.0, None, float("nan")).any()


def test_parts_near_a_keypoint_stay():
    mask = np.zeros((200, 200), bool)
    mask[50:60, 50:60], mask[80:90, 50:60], mask[150:160, 50:60] = True, True, True
    kept = touched(mask, np.array([[55.0, 55.0], [55.0, 79.4], [300.0, -50.0], [np.nan, np.nan]]))
    assert kept[55, 55] and kept[85, 55] and not kept[155, 55]
    assert not touched(mask, np.array([[150.0, 20.0]])).any()
