"""3-D key points from calibrated views, robust to wrong detections: every pair of views is a guess, the guess that most
views confirm wins, and those views alone are solved together."""

from dataclasses import dataclass
from itertools import combinations
from typing import Sequence, Tuple

import numpy as np
from jaxtyping import Bool, Float

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.capture import CaptureCamera
from nerfstudio_ext.human.keypoints import Keypoints2D

MAX_PAIRS = 60
"""Guesses per point; with more cameras an even choice of pairs is tried."""


@dataclass(frozen=True)
class Keypoints3D:
    """Joints in space, metres, world frame; not a number where fewer than two views agree."""

    points: Float[np.ndarray, "frames joints 3"]
    names: Tuple[str, ...]
    error: Float[np.ndarray, "frames cameras joints"]
    """Reprojection error in pixels of the views that were used; not a number for the others."""

    @property
    def seen(self) -> Bool[np.ndarray, "frames joints"]:
        """Where there is a point."""
        return np.isfinite(self.points).all(-1)

    def median_error(self) -> float:
        """Reprojection error in pixels of the views that were used; 0 where there is none."""
        used = self.error[np.isfinite(self.error)]
        return float(np.median(used)) if used.size else 0.0

    def report(self) -> str:
        """How many joints were found and how well they reproject, in words."""
        used = np.isfinite(self.error)
        if not used.any():
            return "no joint was found in two views that agree"
        per_camera = [float(np.median(e[np.isfinite(e)])) if np.isfinite(e).any() else np.nan
                      for e in self.error.transpose(1, 0, 2)]  # fmt: skip
        return (
            f"{self.seen.mean():.0%} of {self.seen.size} joints found, from {used.sum(1)[self.seen].mean():.1f} "
            f"views on average; median reprojection error {self.median_error():.1f} pixels, 90th percentile "
            f"{np.percentile(self.error[used], 90):.1f}; per camera {', '.join(f'{e:.1f}' for e in per_camera)}"
        )


def triangulate(
    keypoints: Keypoints2D, cameras: Sequence[CaptureCamera], threshold: float, confidence: float = 0.2
) -> Keypoints3D:
    """Joints in space.

    Args:
        keypoints: In undistorted pixels of these cameras.
        cameras: At least two.
        threshold: Largest reprojection error in pixels of a view that confirms a guess.
        confidence: Detections less sure than this do not count.

    Raises:
        InputError: The numbers of cameras differ, or there are fewer than two.
    """
    frames, count, joints, _ = keypoints.values.shape
    if count != len(cameras) or count < 2:
        raise InputError(
            f"There are key points from {count} cameras and {len(cameras)} calibrations: one calibration each, and two "
            "at least."
        )
    flat = keypoints.values.transpose(0, 2, 1, 3).reshape(-1, count, 3)
    pixels, weights = flat[..., :2], np.where(flat[..., 2] >= confidence, flat[..., 2], 0.0)
    projections = np.stack([camera.projection() for camera in cameras])
    pairs = list(combinations(range(count), 2))
    best_score = np.full(len(flat), -1.0)
    chosen = np.zeros((len(flat), count), dtype=bool)
    for one, other in pairs[:: -(-len(pairs) // MAX_PAIRS)]:
        only = np.zeros_like(weights)
        only[:, [one, other]] = weights[:, [one, other]]
        guess = solve(projections, pixels, only)
        errors = reprojection(projections, pixels, guess)
        agree = (errors < threshold) & (weights > 0)
        agree &= agree[:, [one]] & agree[:, [other]]
        # As many sure views as possible; of equals, the guess that meets them best.
        score = (agree * weights * (1.0 - 0.5 * np.minimum(errors / threshold, 1))).sum(1)
        better = score > best_score
        best_score, chosen = np.where(better, score, best_score), np.where(better[:, None], agree, chosen)
    points = solve(projections, pixels, weights * chosen)
    errors = reprojection(projections, pixels, points)
    good = chosen.sum(1) >= 2
    points = np.where(good[:, None], points, np.nan)
    errors = np.where(chosen & good[:, None], errors, np.nan)
    return Keypoints3D(
        points.reshape(frames, joints, 3),
        keypoints.names,
        errors.reshape(frames, joints, count).transpose(0, 2, 1),
    )


def solve(
    projections: Float[np.ndarray, "cameras 3 4"],
    pixels: Float[np.ndarray, "n cameras 2"],
    weights: Float[np.ndarray, "n cameras"],
) -> Float[np.ndarray, "n 3"]:
    """Weighted linear triangulation; not a number where the views do not determine a point.

    The equations are divided by the distance from the camera that a first solution gives, so that they measure pixels.
    """
    rows = pixels[..., None] * projections[:, None, 2] - projections[:, :2]
    scale = weights
    for _ in range(2):
        system = (rows * scale[..., None, None]).reshape(len(pixels), -1, 4)
        _, _, basis = np.linalg.svd(system.transpose(0, 2, 1) @ system)
        point = basis[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            points = point[:, :3] / point[:, 3:]
        points = np.where((weights > 0).sum(1, keepdims=True) >= 2, points, np.nan)
        depth = np.nan_to_num(points @ projections[:, 2, :3].T + projections[:, 2, 3], nan=1.0)
        scale = weights / np.maximum(np.abs(depth), 1e-6)
    return points


def reprojection(
    projections: Float[np.ndarray, "cameras 3 4"],
    pixels: Float[np.ndarray, "n cameras 2"],
    points: Float[np.ndarray, "n 3"],
) -> Float[np.ndarray, "n cameras"]:
    """Distance in pixels between detections and projected points; infinite behind the camera or without a point."""
    projected = np.einsum("cij,nj->nci", projections[:, :, :3], points) + projections[:, :, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.linalg.norm(projected[..., :2] / projected[..., 2:] - pixels, axis=-1)
    return np.where((projected[..., 2] > 0) & np.isfinite(distance), distance, np.inf)
