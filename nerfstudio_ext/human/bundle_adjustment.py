"""Cameras and points that agree with what the cameras see of them: robust bundle adjustment.

Levenberg-Marquardt with Cauchy weights, in which the points are eliminated (Schur complement), so that what is solved
at each step is as small as the cameras are few (Triggs et al., *Bundle adjustment: a modern synthesis*, section 6).
"""

from dataclasses import dataclass, replace
from typing import List, Sequence, Tuple

import numpy as np
from jaxtyping import Float

from nerfstudio_ext.human.capture import CaptureCamera

STEPS, ENOUGH = 40, 1e-5
"""Most steps of an adjustment, and the share of the cost that one must gain, or it was the last."""
KNEE = 2.0
"""Standard deviations from which on a detection pulls less and less."""
TURN, PLACE, ZOOM = float(np.radians(1.0)), 0.02, 0.02
"""How far a delivered calibration may well be off: radians, share of the distance to the person, share of the focal
length. A camera that is a little off costs as much as a detection of weight 1 that is off by as many standard
deviations, one that is far off hardly more (Cauchy): it was knocked over."""


@dataclass(frozen=True)
class Observations:
    """What the cameras saw of the points."""

    pixels: Float[np.ndarray, "points cameras 2"]
    """Undistorted; any finite number where the weight is 0."""
    weights: Float[np.ndarray, "points cameras"]
    """How sure each is, 0 where nothing was seen; two of every point at least are above."""
    noise: float
    """Their standard deviation along each axis in pixels."""


@dataclass(frozen=True)
class Delivered:
    """The calibration that is refined."""

    cameras: Sequence[CaptureCamera]
    distance: float
    """From a camera to the person, metres."""

    def tolerance(self) -> Float[np.ndarray, "7"]:
        """How far a camera may well be off: three angles, three metres, logarithm of the focal length."""
        return np.array([TURN] * 3 + [PLACE * self.distance] * 3 + [ZOOM])

    def offsets(self, cameras: Sequence[CaptureCamera]) -> Float[np.ndarray, "cameras 7"]:
        """How far cameras are from their delivered selves, in these numbers."""
        from scipy.spatial.transform import Rotation

        pairs = list(zip(cameras, self.cameras))
        turns = Rotation.from_matrix(np.stack([a.rotation @ b.rotation.T for a, b in pairs])).as_rotvec()
        shifts = np.stack([a.centre() - b.centre() for a, b in pairs])
        zooms = np.log([[a.calibration[0, 0] / b.calibration[0, 0]] for a, b in pairs])
        return np.concatenate([turns, shifts, zooms], axis=1)


def adjust(
    seen: Observations,
    points: Float[np.ndarray, "points 3"],
    cameras: Sequence[CaptureCamera],
    delivered: Delivered,
    focal: bool,
) -> Tuple[List[CaptureCamera], Float[np.ndarray, "points 3"]]:
    """Cameras and points with the least robust error; principal points and distortions stay.

    Args:
        seen: What there is to agree with.
        points: Where to start, metres, world frame, in front of the cameras that saw them.
        cameras: Where to start.
        delivered: Where cameras are drawn to, weakly.
        focal: Whether each camera's focal lengths may change, both by one factor.
    """
    # Each parameter is counted in its tolerance, so that one damping fits all.
    unit = delivered.tolerance()[: 7 if focal else 6]
    size = len(unit) * len(cameras)
    found, damping = list(cameras), 1e-3
    cost = _cost(seen, points, found, delivered)
    for _ in range(STEPS):
        apart, by_camera, by_point = _linearised(seen, points, found)
        by_camera = by_camera[..., : len(unit)] * unit
        weights = _pull(seen, apart)
        heavy = by_camera * weights[..., None, None]
        mixed = np.einsum("ncka,ncki->ncai", heavy, by_point).reshape(len(points), size, 3)
        inner = np.einsum("nc,ncki,nckj->nij", weights, by_point, by_point)
        inner_slope = np.einsum("nc,ncki,nck->ni", weights, by_point, apart)
        offsets = delivered.offsets(found)[:, : len(unit)] / unit
        kept = np.repeat(1 / (1 + (offsets**2).sum(1)), len(unit))
        slope = np.einsum("ncka,nck->ca", heavy, apart).ravel() + kept * offsets.ravel()
        system = np.diag(kept)
        for k, block in enumerate(np.einsum("ncka,nckb->cab", heavy, by_camera)):
            place = slice(k * len(unit), (k + 1) * len(unit))
            system[place, place] += block
        while True:
            held = inner * (1 + damping * np.eye(3))
            solved = np.linalg.solve(held, np.concatenate([mixed.transpose(0, 2, 1), inner_slope[..., None]], axis=2))
            flat = mixed.transpose(1, 0, 2).reshape(size, -1)
            reduced = system + damping * np.diag(np.diag(system)) - flat @ solved[..., :size].reshape(-1, size)
            step = np.linalg.solve(reduced, flat @ solved[..., size].ravel() - slope)
            moved = points - solved[..., size] - solved[..., :size] @ step
            changed = [_stepped(c, s * unit) for c, s in zip(found, step.reshape(len(found), -1))]
            new_cost = _cost(seen, moved, changed, delivered)
            if new_cost < cost or damping > 1e6:
                break
            damping *= 10
        if new_cost >= cost:
            break
        gain, cost, points, found = 1 - new_cost / cost, new_cost, moved, changed
        damping = max(damping / 10, 1e-9)
        if gain < ENOUGH:
            break
    return found, points


def settle(cameras: Sequence[CaptureCamera], delivered: Delivered) -> List[CaptureCamera]:
    """The cameras turned, moved and scaled all together until they stand as they were delivered, as nearly as they can.

    Pictures do not tell where the world's origin is, which way is up, or how long a metre is; the delivered calibration
    does. One camera that is far off does not draw the others along (Cauchy).
    """
    from scipy.optimize import least_squares
    from scipy.spatial.transform import Rotation

    unit = delivered.tolerance()
    middle = np.mean([camera.centre() for camera in delivered.cameras], axis=0)

    def together(values: np.ndarray) -> List[CaptureCamera]:
        turn = Rotation.from_rotvec(unit[:3] * values[:3]).as_matrix()
        centres = [np.exp(PLACE * values[6]) * turn @ (c.centre() - middle) + middle for c in cameras]
        shifted = [centre + unit[3:6] * values[3:6] for centre in centres]
        return [_placed(c, c.rotation @ turn.T, centre) for c, centre in zip(cameras, shifted)]

    def apart(values: np.ndarray) -> np.ndarray:
        return (delivered.offsets(together(values)) / unit)[:, :6].ravel()

    return together(least_squares(apart, np.zeros(7), loss="cauchy", f_scale=0.3, xtol=1e-10, ftol=1e-10, gtol=1e-10).x)


def _cost(seen: Observations, points: np.ndarray, cameras: Sequence[CaptureCamera], delivered: Delivered) -> float:
    """Half of what errors and offsets cost; infinite where a camera has a point that it saw behind itself."""
    cost = 0.5 * float(np.log1p(((delivered.offsets(cameras) / delivered.tolerance()) ** 2).sum(1)).sum())
    for k, camera in enumerate(cameras):
        there = seen.weights[:, k] > 0
        square = ((camera.project(points[there]) - seen.pixels[there, k]) ** 2).sum(-1) / (KNEE * seen.noise) ** 2
        cost += 0.5 * KNEE**2 * float((seen.weights[there, k] * np.log1p(square)).sum())
    return cost if np.isfinite(cost) else np.inf


def _pull(seen: Observations, apart: np.ndarray) -> Float[np.ndarray, "points cameras"]:
    """Weight of each squared error with the same slope as the robust one, per square pixel."""
    return seen.weights / (1 + (apart**2).sum(-1) / (KNEE * seen.noise) ** 2) / seen.noise**2


def _linearised(
    seen: Observations, points: np.ndarray, cameras: Sequence[CaptureCamera]
) -> Tuple[
    Float[np.ndarray, "points cameras 2"],
    Float[np.ndarray, "points cameras 2 7"],
    Float[np.ndarray, "points cameras 2 3"],
]:
    """Errors in pixels, and their derivatives by the cameras' numbers (see `Delivered.tolerance`) and the points."""
    apart, by_camera, by_point = [], [], []
    for k, camera in enumerate(cameras):
        local = camera.local(points)
        depth = np.where(seen.weights[:, k] > 0, local[:, 2], 1.0)
        flat = local[:, :2] / depth[:, None]
        within = camera.calibration[:2, :2]
        apart.append(flat @ within.T + camera.calibration[:2, 2] - seen.pixels[:, k])
        by_flat = np.concatenate([np.tile(np.eye(2), (len(points), 1, 1)), -flat[..., None]], axis=2)
        by_local = within @ by_flat / depth[:, None, None]
        by_point.append(by_local @ camera.rotation)
        # Turning by a small vector moves a point by its cross product with the point.
        by_turn = np.cross(local[:, None], by_local)
        by_camera.append(np.concatenate([by_turn, -by_point[-1], (flat @ within.T)[..., None]], axis=2))
    return np.stack(apart, axis=1), np.stack(by_camera, axis=1), np.stack(by_point, axis=1)


def _stepped(camera: CaptureCamera, step: np.ndarray) -> CaptureCamera:
    """A camera after six or seven of its numbers have changed."""
    from scipy.spatial.transform import Rotation

    placed = _placed(camera, Rotation.from_rotvec(step[:3]).as_matrix() @ camera.rotation, camera.centre() + step[3:6])
    calibration = camera.calibration.copy()
    calibration[:2, :2] *= np.exp(step[6:].sum())
    return replace(placed, calibration=calibration)


def _placed(camera: CaptureCamera, rotation: np.ndarray, centre: np.ndarray) -> CaptureCamera:
    return replace(camera, rotation=rotation, translation=-rotation @ centre)
