"""The 24 keypoints of somebody who stands before a camera: right (the person's left), down and away, metres."""

from typing import Dict, List, Tuple

_MIDDLE = {"head": 0.15, "neck": 0.28, "spine3": 0.42, "spine2": 0.58, "spine1": 0.72, "pelvis": 0.82}
_SIDES = {
    "collar": (0.05, 0.32, 0.0), "shoulder": (0.18, 0.34, 0.0), "elbow": (0.22, 0.62, 0.0),
    "wrist": (0.24, 0.86, -0.08), "hand": (0.24, 0.95, -0.12), "hip": (0.09, 0.88, 0.0), "knee": (0.1, 1.28, -0.03),
    "ankle": (0.1, 1.66, 0.03), "foot": (0.11, 1.72, -0.12),
}  # fmt: skip
STANDING: Dict[str, Tuple[float, float, float]] = {
    **{name: (0.0, down, 0.0) for name, down in _MIDDLE.items()},
    **{f"{side}_{joint}": (sign * x, y, z) for side, sign in (("left", 1), ("right", -1))
       for joint, (x, y, z) in _SIDES.items()},
}  # fmt: skip
HEIGHT = 1.75


def standing(names: Tuple[str, ...]) -> List[List[float]]:
    """In the order of some names."""
    return [list(STANDING[name]) for name in names]
