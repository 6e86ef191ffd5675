"""The free body model fitted to key points in space: build from the lengths of the limbs, then a pose for every frame.

The pose minimises a robust distance to the key points, how far joints turn from rest, knees that bend forwards or
sideways, and how much joints turn from frame to frame.
"""

from dataclasses import dataclass, replace
from typing import Container, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import track
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.agreement import coarse_overlap
from nerfstudio_ext.human.body_build import fit_build, scaled_body
from nerfstudio_ext.human.body_model import BodyModel, anny_keypoints
from nerfstudio_ext.human.body_motion import BodyMotion, Build
from nerfstudio_ext.human.capture import CaptureCamera
from nerfstudio_ext.human.skinning import bone_transforms, rotation_matrix, skin
from nerfstudio_ext.human.triangulation import Keypoints3D

_SIDES = ("L", "R")
STIFFNESS: Dict[str, float] = {
    **{f"spine0{k}": 0.3 for k in range(1, 5)},
    "neck01": 0.3,
    "head": 0.3,
    **{f"clavicle.{side}": 0.5 for side in _SIDES},
    **{f"upperarm01.{side}": 0.01 for side in _SIDES},
    **{f"lowerarm01.{side}": 0.02 for side in _SIDES},
    **{f"upperleg01.{side}": 0.02 for side in _SIDES},
    **{f"lowerleg01.{side}": 0.01 for side in _SIDES},
    **{f"foot.{side}": 0.1 for side in _SIDES},
}
"""Bones that turn, and how much each resists (per squared radian); all others keep their rest pose."""
KNEES = tuple(f"lowerleg01.{side}" for side in _SIDES)
WRONG_WAY = 2.0
"""Weight of a knee's turn sideways, or against its bend (the body faces -y, so a knee bends about +x)."""
REACH = 0.05
"""Metres; key points further off than this pull less and less."""
STEADINESS = 0.05
"""Weight of what joints turn between two frames, per squared radian."""
FINE = 90
"""Squares along a picture's longer side in which silhouettes are compared."""
LEAST_JOINTS = 6
"""Joints that must be seen at least once."""
REFIT_STEPS = 60
"""Of the poses, when the body has got another weight."""


@dataclass(frozen=True)
class FittedBody:
    """A body model in the poses of a capture."""

    body: BodyModel
    build: Build
    motion: BodyMotion
    turns: Float[Tensor, "frames bones 3"]
    """Axis-angle vectors of the bones in `STIFFNESS`."""
    rotations: Float[Tensor, "frames joints 3 3"]
    error: Float[Tensor, "frames joints"]
    """Distance of each key point from the body's in metres; not a number where there was none."""

    def joints(self, names: Sequence[str]) -> Float[Tensor, "frames names 3"]:
        """Joints of the body model in every frame, by name, world frame."""
        chosen = [self.body.joint_names.index(name) for name in names]
        turned = self.body.pose_joints(self.rotations)[:, chosen] @ rotation_matrix(
            self.motion.root_rotation
        ).transpose(1, 2)
        return turned + self.motion.root_translation[:, None]

    def report(self) -> str:
        """Build and errors in words."""
        height = float(np.ptp(self.body.rest_vertices[:, 2].numpy()))
        build = ", ".join(f"{name} {value:.2f}" for name, value in self.build.phenotype.items())
        error = 100 * self.error[torch.isfinite(self.error)]
        return (
            f"{height:.2f} m tall ({build}; size {self.build.size:.2f}); median distance to the key points "
            f"{float(error.median()):.1f} cm, 90th percentile {float(error.quantile(0.9)):.1f} cm"
        )


def fit_body(keypoints: Keypoints3D, phenotype: Optional[Dict[str, float]] = None, steps: int = 300) -> FittedBody:
    """Pose of every frame, and the build that all frames share.

    Args:
        keypoints: World frame, metres; frames without any follow their neighbours.
        phenotype: What is known of the build, each in [0, 1].
        steps: Of the optimisation.

    Raises:
        InputError: Too little is seen, or it is no person in metres.
    """
    used = _used(keypoints, anny_keypoints())
    if len(used) < LEAST_JOINTS:
        raise InputError(
            f"Only {len(used)} of the body's joints are seen anywhere: at least {LEAST_JOINTS} are needed."
        )
    return _fit_poses(keypoints, Build(*fit_build(keypoints, phenotype or {})), None, steps)


def _used(keypoints: Keypoints3D, known: Container[str]) -> List[int]:
    """Key points that the body model knows and that are seen in some frame."""
    return [k for k, name in enumerate(keypoints.names) if name in known and keypoints.seen[:, k].any()]


def _fit_poses(keypoints: Keypoints3D, build: Build, start: Optional[FittedBody], steps: int) -> FittedBody:
    """Pose of every frame for one build, from poses that fit another one already or from none."""
    body = scaled_body(build.phenotype, build.size)
    weights = body.find_keypoints()
    used = _used(keypoints, weights)
    regressor = torch.stack([weights[keypoints.names[k]] for k in used])
    points = torch.from_numpy(keypoints.points[:, used]).float()
    seen = torch.isfinite(points).all(-1)
    target = torch.where(seen[..., None], points, 0.0)

    if start is None:
        values = (torch.zeros(len(points), len(STIFFNESS), 3), *_start(regressor @ body.rest_vertices, target, seen))
    else:
        values = (start.turns.clone(), start.motion.root_rotation.clone(), start.motion.root_translation.clone())
    turns, root, shift = (torch.nn.Parameter(value) for value in values)
    rate = 0.04 if start is None else 0.01
    posed = _Posed(body, regressor)
    stiffness = torch.tensor(list(STIFFNESS.values()))[:, None]
    knees = [list(STIFFNESS).index(name) for name in KNEES]
    optimizer = torch.optim.Adam([{"params": [turns, root], "lr": rate}, {"params": [shift], "lr": rate / 2}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in track(range(steps), "Fitting the body", console=CONSOLE, transient=True):
        distance = (posed.keypoints(turns, root, shift) - target).square().sum(-1)
        loss = (torch.log1p(distance / REACH**2) * seen).sum()
        loss = loss + (stiffness * turns.square()).sum()
        bend = turns[:, knees]
        loss = loss + WRONG_WAY * (bend[..., 1:].square().sum() + torch.relu(-bend[..., 0]).square().sum())
        for value in (turns, root):
            loss = loss + STEADINESS * value.diff(dim=0).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        error = (posed.keypoints(turns, root, shift) - target).norm(dim=-1)
        rotations = posed.rotations(turns)
    error = torch.where(seen, error, torch.nan)
    motion = replace(place(body, rotations, root.detach(), shift.detach()), build=build)
    return FittedBody(body, build, motion, turns.detach(), rotations, error)


def place(body: BodyModel, rotations: Tensor, root: Tensor, shift: Tensor) -> BodyMotion:
    """The motion of a body: joints turn, then the whole body about the world's origin, then it moves."""
    vertices = torch.cat([body.pose(frame[None]) for frame in rotations])
    placed = vertices @ rotation_matrix(root).transpose(1, 2) + shift[:, None]
    return BodyMotion(placed, body.faces, root, shift, body.rest_vertices)


class _Posed:
    """Key points of a body as a function of its pose; of all vertices only those that key points depend on are
    moved."""

    def __init__(self, body: BodyModel, regressor: Float[Tensor, "keypoints vertices"]) -> None:
        needed = torch.nonzero((regressor != 0).any(0))[:, 0]
        self._body, self._regressor = body, regressor[:, needed]
        self._vertices, self._weights = body.rest_vertices[needed], body.weights[needed]
        self._bones = [body.joint_names.index(name) for name in STIFFNESS]

    def rotations(self, turns: Tensor) -> Float[Tensor, "frames joints 3 3"]:
        still = torch.eye(3).repeat(len(turns), len(self._body.parents), 1, 1)
        return still.index_copy(1, torch.tensor(self._bones), rotation_matrix(turns))

    def keypoints(self, turns: Tensor, root: Tensor, shift: Tensor) -> Float[Tensor, "frames keypoints 3"]:
        transforms = bone_transforms(self.rotations(turns), self._body.joints, self._body.parents) @ self._body.bind
        points = self._regressor @ skin(self._vertices, self._weights, transforms)
        return points @ rotation_matrix(root).transpose(1, 2) + shift[:, None]


def _start(rest: Tensor, target: Tensor, seen: Tensor) -> Tuple[Tensor, Tensor]:
    """Rotation vectors and shifts that bring the rest pose nearest to the key points (Procrustes), frame by frame."""
    from scipy.spatial.transform import Rotation

    roots: List[Optional[np.ndarray]] = []
    shifts: List[Optional[np.ndarray]] = []
    for points, there in zip(target, seen):
        if int(there.sum()) < 3:
            roots.append(None)
            shifts.append(None)
            continue
        a, b = rest[there].double(), points[there].double()
        u, _, vt = torch.linalg.svd((b - b.mean(0)).T @ (a - a.mean(0)))
        sign = torch.tensor([1.0, 1.0, float(torch.det(u @ vt).sign())], dtype=torch.float64)
        rotation = u @ torch.diag(sign) @ vt
        roots.append(Rotation.from_matrix(rotation.numpy()).as_rotvec())
        shifts.append((b.mean(0) - rotation @ a.mean(0)).numpy())
    known = [k for k, root in enumerate(roots) if root is not None]
    if not known:
        raise InputError("In no frame are three joints seen at once: the body cannot be placed.")
    nearest = [min(known, key=lambda j: abs(j - k)) for k in range(len(roots))]
    chain = [np.asarray(roots[k]) for k in nearest]
    for k in range(1, len(chain)):
        # The same rotation has many vectors: neighbours must have near ones.
        angle = np.linalg.norm(chain[k])
        if angle > 1e-6:
            turns = [chain[k] * (1 + 2 * np.pi * n / angle) for n in (-1, 0, 1)]
            chain[k] = min(turns, key=lambda vector: float(np.linalg.norm(vector - chain[k - 1])))
    start = np.stack(chain), np.stack([np.asarray(shifts[k]) for k in nearest])
    return torch.from_numpy(start[0]).float(), torch.from_numpy(start[1]).float()


def fill_out(
    fitted: FittedBody,
    keypoints: Keypoints3D,
    cameras: Sequence[CaptureCamera],
    masks: Sequence[Sequence[Bool[np.ndarray, "height width"]]],
    frames: Sequence[int],
    candidates: Sequence[float] = (0.3, 0.45, 0.6, 0.75, 0.9),
) -> FittedBody:
    """The fit with the weight whose silhouettes overlap the masks most, since key points say nothing about it.

    The surface that the body's own key points lie in moves with the weight, so that the poses are fitted once more.

    Args:
        fitted: From key points.
        keypoints: The same.
        cameras: Of the masks.
        masks: By frame and camera.
        frames: Frames of the fit that the masks belong to.
        candidates: Values of the phenotype ``weight`` to try.
    """
    chosen = list(frames)
    root, shift = fitted.motion.root_rotation, fitted.motion.root_translation
    overlaps = []
    for weight in candidates:
        body = scaled_body({**fitted.build.phenotype, "weight": weight}, fitted.build.size)
        some = place(body, fitted.rotations[chosen], root[chosen], shift[chosen])
        found = [
            coarse_overlap(camera, vertices.double().numpy(), mask, FINE)
            for vertices, row in zip(some.vertices, masks)
            for camera, mask in zip(cameras, row)
        ]
        overlaps.append(float(np.mean(found)))
    weight = candidates[int(np.argmax(overlaps))]
    build = replace(fitted.build, phenotype={**fitted.build.phenotype, "weight": weight})
    return _fit_poses(keypoints, build, fitted, REFIT_STEPS)
