"""A weak calibration made better by the 2-D key points of a person who moves before the cameras.

Rounds of robust triangulation, which decides anew which detections to believe, and of bundle adjustment; every fifth
stretch of the frames has no part in it and tells whether the result is better.
"""

from dataclasses import dataclass, replace
from typing import List, Sequence, Tuple

import numpy as np
from jaxtyping import Bool, Float

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.bundle_adjustment import Delivered, Observations, adjust, settle
from nerfstudio_ext.human.capture import CaptureCamera
from nerfstudio_ext.human.capture_keypoints import undistorted
from nerfstudio_ext.human.keypoints import Keypoints2D
from nerfstudio_ext.human.triangulation import Keypoints3D, triangulate

ROUNDS = (0.08, 0.04, 0.02, 0.02, 0.02)
"""Largest error of a detection that is believed, as a share of the picture's longer side, in each round: a calibration
that is off makes right detections look wrong."""
CONFIDENCE = 0.2
"""Detections less sure than this do not count."""
STRETCHES, EVERY = 25, 5
"""Neighbouring frames hardly differ, so that stretches of frames are held out, every so-manieth of at most so many."""
LEAST_FRAMES, LEAST_SEEN = 5, 60
"""Frames, and believed detections of every camera, that are too few below."""
ALIKE = 50.0
"""Detections that count as one: a detector's errors are alike from frame to frame. Where all counted in full, the real
recording's cameras wandered by 12 cm to please them, and frames that were held out agreed less."""
STILL = 0.04
"""Metres about their middles that joints have to move, or all frames say the same."""
MOST_POINTS = 4000
"""Joints that are adjusted; of more an even choice."""
GAIN = 0.02
"""Share of the held-out error that must be gained."""


@dataclass(frozen=True)
class Refinement:
    """A calibration before and after, and how well the key points fit each.

    Errors are in undistorted pixels, from where a joint was detected to where its triangulated point is seen: not a
    number where the joint was not detected by this camera and another one, infinite where no two cameras agreed.
    """

    delivered: List[CaptureCamera]
    cameras: List[CaptureCamera]
    before: Float[np.ndarray, "frames cameras joints 2"]
    after: Float[np.ndarray, "frames cameras joints 2"]
    held_out: Bool[np.ndarray, "frames"]
    """Frames that had no part in the refinement."""

    def report(self, names: Sequence[str]) -> str:
        """A table with a row per camera and one of all.

        Args:
            names: Of the cameras.
        """
        parts = [(errors, chosen) for chosen in (~self.held_out, self.held_out) for errors in (self.before, self.after)]
        offsets = Delivered(self.delivered, 1.0).offsets(self.cameras)
        worse = []
        rows = [["camera", "used: median", "90%", "held out: median", "90%", "moved", "turned", "focal"]]
        for k, name in [*enumerate(names), (None, "all")]:
            some = slice(None) if k is None else slice(k, k + 1)
            quantiles = [[_quantile(errors[chosen][:, some], q) for errors, chosen in parts] for q in (0.5, 0.9)]
            cells = [f"{q[i]:.1f} -> {q[i + 1]:.1f}" for i in (0, 2) for q in quantiles]
            if k is not None:
                turned, moved = (float(np.linalg.norm(part)) for part in (offsets[k, :3], offsets[k, 3:6]))
                zoom = np.expm1(offsets[k, 6])
                worse += [name] if quantiles[0][3] > (1 + GAIN) * quantiles[0][2] else []
                cells += [f"{100 * moved:.1f} cm", f"{np.degrees(turned):.2f} deg", f"{zoom:+.1%}"]
            rows.append([name, *cells, *[""] * (7 - len(cells))])
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, *(f"{name} has become worse in the held-out frames: look at it" for name in worse)])

    def held_out_error(self) -> List[float]:
        """Median errors in pixels of the frames that had no part, before and after."""
        return [_quantile(errors[self.held_out], 0.5) for errors in (self.before, self.after)]


def refine(
    keypoints: Keypoints2D,
    cameras: Sequence[CaptureCamera],
    names: Sequence[str],
    side: int,
    focal: bool = False,
    where: str = "The recording",
) -> Refinement:
    """Cameras that agree better with the key points; world frame, metres, principal points and distortions stay.

    Args:
        keypoints: Of one person, in pixels of the pictures as they are (not undistorted).
        cameras: Of these pictures.
        names: Of the cameras, for messages.
        side: Longer side of the pictures in pixels.
        focal: Whether the focal lengths of each camera may change, both by one factor.
        where: Where the key points are from, for messages.

    Raises:
        InputError: There is too little to go by, or nothing is gained.
    """
    if len(cameras) < 2 or keypoints.values.shape[1] != len(cameras):
        raise InputError(f"{where} has {keypoints.values.shape[1]} cameras and the calibration {len(cameras)}: equally "
                         "many, and two at least, are needed.")  # fmt: skip
    if len(keypoints.values) < LEAST_FRAMES:
        raise InputError(f"{where} has {len(keypoints.values)} frames: at least {LEAST_FRAMES} are needed, as some "
                         "are held out.")  # fmt: skip
    delivered, held_out = [_orthonormal(camera) for camera in cameras], hold_out(len(keypoints.values))
    used = Keypoints2D(keypoints.values[~held_out], keypoints.names)
    found = list(delivered)
    for share in ROUNDS:
        joints = triangulate(undistorted(used, found, where), found, share * side, CONFIDENCE)
        believed = np.isfinite(joints.error).transpose(0, 2, 1) & joints.seen[..., None]
        _require_enough(joints, believed, names, where)
        found, known = _adjusted(used, joints, believed, found, delivered, focal, where)
    _require_movement(joints, where)
    found = settle(found, known)
    before, after = (_errors(keypoints, some, ROUNDS[-1] * side, where) for some in (delivered, found))
    for k, name in enumerate(names):
        if not _quantile(after[:, k], 0.5) < ROUNDS[-1] * side:
            raise InputError(
                f"{where} cannot be brought into agreement: most detections of camera {name} lie more than "
                f"{ROUNDS[-1]:.0%} of the longer side beside where the others say that they are (look whether --size, "
                "--keypoint-scale and the order of the cameras are right and the videos start together, or leave this "
                "camera out)."
            )
    result = Refinement(delivered, found, before, after, held_out)
    old, new = result.held_out_error()
    if np.isnan(old):
        raise InputError(
            f"{where} has no joint that two cameras see in the frames that were held out: take more frames."
        )
    if not new < (1 - GAIN) * old:
        raise InputError(
            f"Nothing is gained: in the frames that were held out joints lie {old:.1f} pixels beside where they were "
            f"detected with the calibration as it is and {new:.1f} when refined, so keep the one you have."
        )
    return result


def hold_out(frames: int) -> Bool[np.ndarray, "frames"]:
    """Which frames are not used: about every fifth, in stretches."""
    stretches = min(STRETCHES, frames)
    return np.arange(frames) * stretches // frames % EVERY == EVERY // 2


def _orthonormal(camera: CaptureCamera) -> CaptureCamera:
    """The camera with the rotation that is nearest to what its file says in few digits."""
    left, _, right = np.linalg.svd(camera.rotation)
    return replace(camera, rotation=left @ right)


def _adjusted(
    used: Keypoints2D,
    joints: Keypoints3D,
    believed: np.ndarray,
    cameras: List[CaptureCamera],
    delivered: List[CaptureCamera],
    focal: bool,
    where: str,
) -> Tuple[List[CaptureCamera], Delivered]:
    """One round, and how far the delivered cameras stand from the person."""
    flat = undistorted(used, cameras, where).values.transpose(0, 2, 1, 3)
    chosen = np.flatnonzero((believed.sum(-1) >= 2).ravel())
    chosen = chosen[:: -(-len(chosen) // MOST_POINTS)]
    seen, points = believed.reshape(-1, len(cameras))[chosen], joints.points.reshape(-1, 3)[chosen]
    values = flat.reshape(-1, len(cameras), 3)[chosen]
    weights = np.where(seen, np.minimum(values[..., 2], 1.0), 0.0) / ALIKE
    # The median length of a vector whose two parts have standard deviation 1 is 1.18.
    noise = max(joints.median_error() / 1.18, 0.1)
    distance = float(np.median([np.linalg.norm(points - camera.centre(), axis=1) for camera in cameras]))
    known = Delivered(delivered, distance)
    better, _ = adjust(Observations(values[..., :2], weights, noise), points, cameras, known, focal)
    return better, known


def _require_enough(joints: Keypoints3D, believed: np.ndarray, names: Sequence[str], where: str) -> None:
    counts = (believed & (believed.sum(-1, keepdims=True) >= 2)).sum((0, 1))
    fewest = int(counts.argmin())
    if counts[fewest] < LEAST_SEEN:
        raise InputError(
            f"{where} has too little to refine camera {names[fewest]} by: {counts[fewest]} detections agree with "
            f"another camera's, and at least {LEAST_SEEN} are needed (take more frames, leave the camera out, or look "
            "whether --size, --keypoint-scale and the order of the cameras are right)."
        )


def _require_movement(joints: Keypoints3D, where: str) -> None:
    middles = np.nanmedian(np.where(joints.seen.any(0)[None, :, None], joints.points, 0.0), axis=0)
    moved = float(np.median(np.linalg.norm(joints.points - middles, axis=-1)[joints.seen]))
    if moved < STILL:
        raise InputError(f"{where} shows a person who hardly moves (half of the joints stay within {100 * moved:.1f} "
                         "cm): take a clip in which the person walks about or waves.")  # fmt: skip


def _errors(
    keypoints: Keypoints2D, cameras: Sequence[CaptureCamera], threshold: float, where: str
) -> Float[np.ndarray, "frames cameras joints 2"]:
    """See `Refinement`; all detections count, believed or not."""
    flat = undistorted(keypoints, cameras, where)
    points = triangulate(flat, cameras, threshold, CONFIDENCE).points
    there = flat.values[..., 2] >= CONFIDENCE
    there &= there.sum(1, keepdims=True) >= 2
    pixels = np.stack([camera.project(points) for camera in cameras], axis=1)
    return np.where(there[..., None], np.nan_to_num(pixels - flat.values[..., :2], nan=np.inf), np.nan)


def _quantile(errors: Float[np.ndarray, "*batch 2"], share: float) -> float:
    """Of the lengths of those that are numbers; one of them, since some are infinite."""
    known = np.linalg.norm(errors[~np.isnan(errors).any(-1)], axis=-1)
    return float(np.quantile(known, share, method="higher")) if known.size else np.nan
