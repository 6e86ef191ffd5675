"""Masks of a moving person from a camera that stands still: what differs from the background of the whole clip.

The background is the median of each pixel over the clip. Where the person's joints are known, frames in which the
person covers a pixel do not count for it, so that somebody who stays in one place does not become background; and only
what lies near the joints can be the person. Without joints the person must leave every place for half of the clip.
"""

from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

LEAST_DIFFERENCE = 18.0
"""Grey levels that a pixel must differ from the background at least."""
LEAST_FRAMES = 3
"""Frames in which a pixel must be uncovered for its background to be known."""
SHADOW = (0.5, 0.97)
"""A pixel that keeps its colour and this share of its brightness lies in a shadow."""
STRIP = 32
"""Rows of which medians are taken at once."""
LEAST_HOLE = 0.01
"""Holes smaller than this share of the person are filled; larger ones are between limbs."""
SURE = 0.2
"""Confidence from which a joint counts as seen."""

_TRUNK = ("left_shoulder", "right_shoulder", "right_hip", "left_hip")
_BONES: Tuple[Tuple[str, str, float], ...] = (
    *((f"{s}_shoulder", f"{s}_elbow", 0.14) for s in ("left", "right")),
    *((f"{s}_elbow", f"{s}_wrist", 0.11) for s in ("left", "right")),
    *((f"{s}_hip", f"{s}_knee", 0.2) for s in ("left", "right")),
    *((f"{s}_knee", f"{s}_ankle", 0.14) for s in ("left", "right")),
    *((f"{s}_ankle", f"{s}_big_toe", 0.1) for s in ("left", "right")),
    *((f"{s}_ankle", f"{s}_heel", 0.1) for s in ("left", "right")),
)
"""Limbs and half of their width, in lengths of the trunk."""
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
HEAD, HAND = 0.27, 0.4
"""Radius of a head in lengths of the trunk; what a hand adds to the length of the forearm."""


@dataclass(frozen=True)
class Background:
    """What a camera sees without the person."""

    colour: UInt8[np.ndarray, "height width 3"]
    noise: Float[np.ndarray, "height width"]
    """Standard deviation in grey levels, from the median of deviations."""
    known: Bool[np.ndarray, "height width"]
    """Pixels that were uncovered often enough; elsewhere the colour is the mean of a covered pixel's neighbours."""


def background(
    frames: UInt8[np.ndarray, "frames height width 3"], covered: Optional[Bool[np.ndarray, "frames height width"]]
) -> Background:
    """The median picture of some frames.

    Args:
        frames: Evenly over the clip.
        covered: Where the person is or may be; none: not known, and no frame is left out.
    """
    count, height, width, _ = frames.shape
    hidden = np.zeros((count, height, width), dtype=bool) if covered is None else covered
    colour, noise = np.zeros((height, width, 3), dtype=np.uint8), np.zeros((height, width), dtype=np.float32)
    for top in range(0, height, STRIP):
        rows = slice(top, top + STRIP)
        gone = hidden[:, rows, :, None]
        colour[rows] = _median(frames[:, rows].astype(np.int16), gone)
        apart = np.abs(frames[:, rows].astype(np.int16) - colour[rows]).max(-1, keepdims=True)
        noise[rows] = 1.4826 * _median(apart, gone)[..., 0]
    known = (~hidden).sum(0) >= min(LEAST_FRAMES, count)
    if not known.all():
        colour = cv2.inpaint(colour, (~known).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    return Background(colour, noise, known)


def _median(values: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Lower median along the first axis of what is not gone; the largest number there is where all are."""
    ordered = np.sort(np.where(gone, np.iinfo(values.dtype).max, values), axis=0)
    middle = np.maximum((~gone).sum(0) - 1, 0) // 2
    found = np.take_along_axis(ordered, np.broadcast_to(middle[None], (1, *values.shape[1:])), axis=0)[0]
    return np.minimum(found, 255)


def differs(
    frame: UInt8[np.ndarray, "height width 3"], behind: Background, strictness: float
) -> Bool[np.ndarray, "height width"]:
    """Pixels that are neither background nor a shadow on it.

    Args:
        frame: Of the clip.
        behind: Its background.
        strictness: Standard deviations of the noise that are no difference yet.
    """
    picture, plain = frame.astype(np.float32), behind.colour.astype(np.float32)
    limit = np.maximum(LEAST_DIFFERENCE, strictness * behind.noise)
    ratio = (picture * plain).sum(-1) / np.maximum((plain * plain).sum(-1), 1.0)
    tint = np.abs(picture - ratio[..., None] * plain).max(-1)
    # In the dark every colour is near every other one.
    shadow = (ratio > SHADOW[0]) & (ratio < SHADOW[1]) & (tint < 0.6 * limit) & (plain.max(-1) > 60)
    return (np.abs(picture - plain).max(-1) > limit) & ~shadow


def person_mask(
    frame: UInt8[np.ndarray, "height width 3"],
    behind: Background,
    strictness: float,
    joints: Optional[Dict[str, Float[np.ndarray, "3"]]],
    trunk: float,
) -> Bool[np.ndarray, "height width"]:
    """The largest thing before the background; with joints, all that hangs together with them.

    Args:
        frame: Of the clip.
        behind: Its background.
        strictness: Standard deviations of the noise that are no difference yet.
        joints: x, y in pixels and confidence, by name.
        trunk: Length of the person's trunk in pixels; only with joints.
    """
    found, core = differs(frame, behind, strictness), None
    if joints is not None:
        shape = found.shape
        core = body_region(joints, trunk, shape, 0.5)
        flesh = body_region(joints, trunk, shape, 0.85)
        found = (found & behind.known & body_region(joints, trunk, shape, 1.9)) | core | (~behind.known & flesh)
    smooth = cv2.medianBlur(found.astype(np.uint8), 5)
    smooth = cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(smooth, connectivity=8)
    if count < 2:
        return np.zeros(found.shape, dtype=bool)
    # A neck in front of something of its colour must not cost the head.
    kept = [1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())] if core is None else np.unique(labels[core & (smooth > 0)])
    person = np.isin(labels, kept)
    _, holes, sizes, _ = cv2.connectedComponentsWithStats((~person).astype(np.uint8), connectivity=4)
    small = sizes[:, cv2.CC_STAT_AREA] < LEAST_HOLE * person.sum()
    small[0] = False  # the person itself
    return person | small[holes]


def touched(mask: Bool[np.ndarray, "h w"], pixels: Float[np.ndarray, "k 2"]) -> Bool[np.ndarray, "h w"]:
    """The connected parts of a mask within a few pixels of a keypoint; others are somebody else, or noise."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    height, width = mask.shape
    reach = max(1, round(0.005 * max(height, width)))
    found = set()
    for column, row in np.nan_to_num(pixels, nan=-1e6):
        top, left = (int(np.clip(round(value) - reach, -1e6, 1e6)) for value in (row, column))
        if top + 2 * reach >= 0 and left + 2 * reach >= 0:
            window = labels[max(top, 0) : top + 2 * reach + 1, max(left, 0) : left + 2 * reach + 1]
            found |= set(window.ravel().tolist())
    return np.isin(labels, [label for label in found if label])


def trunk_length(joints: Sequence[Dict[str, Float[np.ndarray, "3"]]]) -> float:
    """Median distance from the shoulders to the hips over the frames of a clip, pixels; not a number where no frame
    shows all four."""
    found = []
    for frame in joints:
        if all(frame[name][2] > SURE for name in _TRUNK if name in frame) and set(_TRUNK) <= frame.keys():
            corners = np.stack([frame[name][:2] for name in _TRUNK])
            found.append(float(np.linalg.norm(corners[:2].mean(0) - corners[2:].mean(0))))
    return float(np.median(found)) if found else float("nan")


def body_region(
    joints: Dict[str, Float[np.ndarray, "3"]], trunk: float, shape: Tuple[int, ...], wide: float
) -> Bool[np.ndarray, "height width"]:
    """Pixels about the limbs, the trunk and the head of one person.

    Args:
        joints: x, y in pixels and confidence, by name.
        trunk: Length of the trunk in pixels.
        shape: Height and width.
        wide: Half the limbs' width, in that of an ordinary person.
    """
    drawn = np.zeros(shape, dtype=np.uint8)
    seen = {name: point[:2] for name, point in joints.items() if point[2] > SURE}

    def line(a: np.ndarray, b: np.ndarray, radius: float) -> None:
        ends = [tuple(np.round(p).astype(int).tolist()) for p in (a, b)]
        cv2.line(drawn, ends[0], ends[1], (1,), max(1, round(2 * radius * wide * trunk)))

    for one, other, radius in _BONES:
        if one in seen and other in seen:
            line(seen[one], seen[other], radius)
    for side in ("left", "right"):
        elbow, wrist = seen.get(f"{side}_elbow"), seen.get(f"{side}_wrist")
        if elbow is not None and wrist is not None:
            line(wrist, wrist + HAND * (wrist - elbow), 0.1)
    if all(name in seen for name in _TRUNK):
        corners = np.round([seen[name] for name in _TRUNK]).astype(np.int32)
        cv2.fillPoly(drawn, [corners], (1,))
        for k in range(4):
            line(corners[k], corners[(k + 1) % 4], 0.14)
    for middle in _heads(seen):
        line(middle, middle, HEAD)
        for below in ("left_shoulder", "right_shoulder"):
            if below in seen:
                line(middle, 0.35 * middle + 0.65 * seen[below], 0.13)
    return drawn > 0


def _heads(seen: Dict[str, Float[np.ndarray, "2"]]) -> List[Float[np.ndarray, "2"]]:
    """Where the middle of the head is, by the face, by neck and top, or, from behind, above the trunk."""
    face = [seen[name] for name in _FACE if name in seen]
    found = [np.mean(face, axis=0)] if face else []
    if "neck" in seen and "head_top" in seen:
        found.append(0.45 * seen["neck"] + 0.55 * seen["head_top"])
    if not found and all(name in seen for name in _TRUNK):
        shoulders, hips = (np.mean([seen[name] for name in names], axis=0) for names in (_TRUNK[:2], _TRUNK[2:]))
        found.append(shoulders + 0.4 * (shoulders - hips))
    return found
