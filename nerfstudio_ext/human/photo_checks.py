"""Whether keypoints, cameras and masks can be of one person: what training never saw is refused, not drawn badly.

The bounds are wide of what was measured: 132 drawn people and 4 moments of a real one for bodies, 520 pictures of drawn
faces. There bodies' keypoints span 0.78 to 0.98 of their masks, faces' 0.29 to 0.58, and every mask is in the box.
"""

from itertools import product
from typing import Any, Dict, Sequence, Tuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.keypoint_encoding import keypoint_box
from nerfstudio_ext.human.photo_frames import PhotoFrame

BODY_SPAN, OTHER_SPAN = (0.4, 1.5), (0.2, 1.5)
"""Longest side of the keypoints over that of the mask: of whole bodies, and of other sets, as faces."""
IN_BOX = 0.7
"""Least share of the mask that lies in the box of the keypoints, in which alone the networks look for the person."""
ON_PERSON = 0.7
"""Least share of the keypoints within the mask's rectangle."""
BONES: Dict[str, Tuple[str, str, float]] = {
    "thigh": ("hip", "knee", 1.3),
    "shin": ("knee", "ankle", 1.3),
    "foot": ("ankle", "foot", 2.0),
    "upper arm": ("shoulder", "elbow", 1.3),
    "forearm": ("elbow", "wrist", 1.3),
    "hand": ("wrist", "hand", 2.0),
}
"""Limbs by their joints, and how many times as long as the other side's one may be (measured: 1.01)."""
RATIOS: Dict[Tuple[str, str], Tuple[float, float]] = {
    ("thigh", "shin"): (0.55, 1.7),
    ("upper arm", "forearm"): (0.6, 2.0),
    ("foot", "shin"): (0.12, 0.8),
    ("hand", "forearm"): (0.1, 1.0),
    ("upper arm", "thigh"): (0.35, 1.3),
    ("hips", "thigh"): (0.15, 1.2),
    ("shoulders", "upper arm"): (0.5, 2.6),
    ("torso", "thigh"): (0.6, 2.6),
    ("spine", "torso"): (0.99, 1.6),
    ("neck", "torso"): (0.05, 0.7),
}
"""How long one part of a body is, as a multiple of another one, at least and at most."""
TORSO = (0.2, 1.0)
"""Metres from pelvis to neck, of a toddler and of a giant."""
ACROSS = {"hips": "hip", "shoulders": "shoulder"}
SPINE = ("pelvis", "spine1", "spine2", "spine3", "neck")


def check_body(keypoints: Float[Tensor, "k 3"], names: Sequence[str], where: str, error: float = 0.0) -> None:
    """Refuse keypoints that no body can have, which is what another order of them makes; sets that are not of a whole
    body pass.

    A body in which one pair of joints in the middle of a limb is swapped between left and right may pass.

    Args:
        keypoints: Any frame, metres.
        names: Of the keypoints.
        where: For the message.
        error: Metres by which lengths may go beyond the bounds, where keypoints are a detector's.

    Raises:
        InputError: Lengths differ between the sides or do not fit each other, or left and right are swapped.
    """
    at = dict(zip(names, keypoints.double().numpy()))
    if not is_body(names):
        return
    advice = "are keypoints3d in the order of keypoint_names, and left and right the person's own?"
    lengths: Dict[str, float] = {}
    for part, (start, end, most) in BONES.items():
        sides = [float(np.linalg.norm(at[f"{side}_{end}"] - at[f"{side}_{start}"])) for side in ("left", "right")]
        if max(sides) > most * min(sides) + error:
            raise InputError(
                f"{where}: the left {part} ({start} to {end}) is {sides[0]:.2f} m long, but the right {sides[1]:.2f} "
                f"m; {advice}"
            )
        lengths[part] = sum(sides) / 2
    across = {part: at[f"left_{joint}"] - at[f"right_{joint}"] for part, joint in ACROSS.items()}
    lengths.update({part: float(np.linalg.norm(way)) for part, way in across.items()})
    up = at["neck"] - at["pelvis"]
    lengths["torso"] = float(np.linalg.norm(up))
    lengths["spine"] = float(np.linalg.norm(np.diff([at[joint] for joint in SPINE], axis=0), axis=1).sum())
    lengths["neck"] = float(np.linalg.norm(at["head"] - at["neck"]))
    for (one, other), (least, most) in RATIOS.items():
        if not least * lengths[other] - error <= lengths[one] <= most * lengths[other] + error:
            raise InputError(
                f"{where}: {one} and {other} measure {lengths[one]:.2f} m and {lengths[other]:.2f} m, which no body "
                f"has; {advice}"
            )
    if not TORSO[0] <= lengths["torso"] <= TORSO[1]:
        raise InputError(f"{where}: the torso is {lengths['torso']:.2f} m long; keypoints3d must be in metres.")
    if float(across["hips"] @ across["shoulders"]) < -0.3 * lengths["hips"] * lengths["shoulders"]:
        raise InputError(f"{where}: hips and shoulders face opposite ways; {advice}")
    if all(_backwards(at, side, across["hips"], up) for side in ("left", "right")):
        raise InputError(f"{where}: both feet point backwards, as if left and right were swapped; {advice}")


def _backwards(at: Dict[str, Any], side: str, left: Any, up: Any) -> bool:
    """Whether a foot points backwards as seen both from the torso and from its own shin: one alone does in a bow and on
    the knees."""
    toe = at[f"{side}_foot"] - at[f"{side}_ankle"]
    ways = (np.cross(left, along) for along in (up, at[f"{side}_knee"] - at[f"{side}_ankle"]))
    return all(float(toe @ way) < -0.3 * np.linalg.norm(toe) * np.linalg.norm(way) for way in ways)


def is_body(names: Sequence[str]) -> bool:
    """Whether these keypoints have all joints that limbs are measured by."""
    joints = {joint for start, end, _ in BONES.values() for joint in (start, end)}
    return {*SPINE, "head", *(f"{side}_{joint}" for side in ("left", "right") for joint in joints)} <= set(names)


def check_view(
    keypoints: Float[Tensor, "k 3"], names: Sequence[str], frame: PhotoFrame, mask: Bool[np.ndarray, "h w"]
) -> None:
    """Refuse a camera that does not see the keypoints, or sees them where the person is not, or in another size.

    Args:
        keypoints: World frame, metres.
        names: Of the keypoints.
        frame: The camera.
        mask: Of the undistorted photo.

    Raises:
        InputError: The message says which photo, and what about it.
    """
    pixels, depth = _project(keypoints, frame)
    if depth.min() <= 0:
        raise InputError(f"{frame.where}: keypoints are behind the camera; poses are camera-to-world with OpenGL axes.")
    places = np.argwhere(mask)[:, ::-1] + 0.5
    low, high = places.min(0) - 0.5, places.max(0) + 0.5
    side, span = float((high - low).max()), float(np.ptp(pixels, axis=0).max())
    least, most = BODY_SPAN if is_body(names) else OTHER_SPAN
    if not least * side <= span <= most * side:
        raise InputError(
            f"{frame.where}: the keypoints span {span:.0f} pixels, but the person in the mask {side:.0f}; keypoints3d "
            "and the positions in transform_matrix must both be in metres, and mask and camera those of this photo."
        )
    slack = 0.1 * side
    inside = ((pixels > low - slack) & (pixels < high + slack)).all(1)
    if inside.mean() < ON_PERSON:
        raise InputError(
            f"{frame.where}: only {inside.sum()} of {len(inside)} keypoints fall on the person; calibration, keypoints "
            "and mask do not belong together."
        )
    corners, depth = _project(torch.tensor(list(product(*keypoint_box(keypoints).T.tolist()))), frame)
    if depth.min() > 0:  # otherwise the camera stands in the box, which then fills the picture
        found = ((places >= corners.min(0)) & (places <= corners.max(0))).all(1).mean()
        if found < IN_BOX:
            raise InputError(
                f"{frame.where}: only {found:.0%} of the mask lies in the box around the keypoints; leave nothing but "
                "this person in the mask, and give the keypoints of this person and this moment."
            )


def _project(
    points: Float[Tensor, "n 3"], frame: PhotoFrame
) -> Tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n"]]:
    """Pixels and depths; the pixels mean nothing behind the camera."""
    pose = frame.pose.double().numpy()
    local = (points.double().numpy() - pose[:, 3]) @ pose[:, :3] * [1, -1, -1]
    pixels = local @ frame.matrix.T
    return pixels[:, :2] / np.where(np.abs(pixels[:, 2:]) < 1e-9, 1e-9, pixels[:, 2:]), local[:, 2]
