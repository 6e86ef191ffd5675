"""Bodies of the SMPL family from the user's own licensed files: shape, pose blend shapes, skinning; and EasyMocap's
convention, in which the body turns about the world's origin instead of about its pelvis.

A file is a dict of v_template [V, 3] (metres, y up), f, shapedirs [V, 3, n], posedirs [V, 3, 9 (J - 1)], J_regressor
[J, V], weights [V, J] and kintree_table [2, J], as `.npz` or as the published `.pkl`. The latter may hold objects of
the package chumpy, which no longer installs: their numbers are taken, nothing of it is run. SMPL has 24 joints, SMPL-H
52 (22 of the body, 15 of each hand), SMPL-X 55 (22, jaw, left and right eye, the hands). Files with hands may hold
hands_componentsl and -r [45, 45] and hands_meanl and -r [45]; the shape directions of SMPL-X end in expressions.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_model import BodyModel
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.skinning import rotation_matrix
from nerfstudio_ext.human.zju_layout import PlainUnpickler

KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
HAND_KEYS = ("hands_componentsl", "hands_componentsr", "hands_meanl", "hands_meanr")
BODY, FACE, HAND = 22, 3, 15
"""Joints of the body, of the face in SMPL-X, and of one hand."""
JOINT_NAMES = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip
"""Of the body, as its makers call them; the head's and the hands' come behind."""
_SPARSE = ("csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array", "coo_array")


@dataclass(frozen=True)
class Hands:
    """How hands are posed with a few numbers: the left one first."""

    components: Float[Tensor, "2 components 45"]
    mean: Float[Tensor, "2 45"]
    """Added to poses of components; whole poses have it already, as EasyMocap writes them."""


@dataclass(frozen=True)
class SmplBody:
    """One body of the family; parents precede their children."""

    template: Float[Tensor, "vertices 3"]
    faces: Int[Tensor, "faces 3"]
    shape_directions: Float[Tensor, "vertices 3 shapes"]
    pose_directions: Float[Tensor, "vertices 3 features"]
    regressor: Float[Tensor, "joints vertices"]
    weights: Float[Tensor, "vertices joints"]
    parents: Tuple[int, ...]
    expression_directions: Optional[Float[Tensor, "vertices 3 expressions"]] = None
    """SMPL-X's."""
    hands: Optional[Hands] = None
    """Where the file tells."""

    def shaped(
        self,
        betas: Float[Tensor, "shapes"],
        blend_shapes: bool = True,
        expressions: Optional[Float[Tensor, "frames expressions"]] = None,
    ) -> BodyModel:
        """One person's body, as all of the suite's are: y up, at rest in the pose without rotations.

        Args:
            betas: Shape; fewer numbers than the body has mean zeros behind them.
            blend_shapes: Bend the surface with the pose; ZJU-MoCap's first fit (`params`) was made without.
            expressions: Of SMPL-X's face in some frames, for poses of the same frames; none: neutral.

        Raises:
            InputError: The body does not know so many shapes or expressions.
        """
        shaped = self.template + _along(self.shape_directions, betas[None], "shapes")[0]
        if expressions is not None:
            directions = self.expression_directions
            if directions is None:
                directions = self.template.new_zeros(*self.template.shape, 0)
            shaped = shaped + _along(directions, expressions, "expressions")
        return BodyModel(
            rest_vertices=shaped,
            faces=self.faces,
            joints=self.regressor @ shaped,
            parents=self.parents,
            weights=self.weights,
            joint_names=(*JOINT_NAMES, *(f"joint{k}" for k in range(len(JOINT_NAMES), len(self.parents)))),
            bind=torch.eye(4).repeat(len(self.parents), 1, 1),
            pose_directions=self.pose_directions if blend_shapes else None,
            find_keypoints=self._keypoints,
        )

    def _keypoints(self) -> Dict[str, Float[Tensor, "vertices"]]:
        """Joints that COCO names, too: its hips, knees, ankles, shoulders, elbows and wrists."""
        limbs = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
        return {name: self.regressor[k] for k, name in enumerate(JOINT_NAMES) if name.split("_")[-1] in limbs}

    def whole_poses(self, poses: Float[Tensor, "frames numbers"]) -> Float[Tensor, "frames joints 3"]:
        """Axis-angle vectors of all joints from what files hold.

        Known are 3 numbers per joint; 3 fewer, which means that the root's were left out; and EasyMocap's 66 of the
        body, k components of the left hand, k of the right, and for SMPL-X 9 of jaw and eyes, which lie before the
        hands in the body.

        Raises:
            InputError: The poses are of another body, or the file does not say how its hands are posed.
        """
        joints, numbers = len(self.parents), poses.shape[1]
        if numbers == 3 * (joints - 1):
            poses = torch.cat([poses.new_zeros(len(poses), 3), poses], dim=1)
        elif numbers != 3 * joints:
            face = 3 * FACE if joints == BODY + FACE + 2 * HAND else 0
            count, odd = divmod(numbers - 3 * BODY - face, 2)
            if joints not in (BODY + 2 * HAND, BODY + FACE + 2 * HAND) or odd or not 0 < count <= 3 * HAND:
                raise InputError(
                    f"The poses have {numbers} numbers, but a body with {joints} joints needs {3 * joints}: they are "
                    "of another family."
                )
            if self.hands is None or count > self.hands.components.shape[1]:
                raise InputError(
                    f"The poses name {count} components of each hand, but the body's file has no hands_componentsl and "
                    "hands_meanl for them: take the file that has, or write whole poses."
                )
            body, left, right, head = poses.split([3 * BODY, count, count, face], dim=1)
            components, mean = self.hands.components[:, :count], self.hands.mean
            hands = [values @ components[k] + mean[k] for k, values in enumerate((left, right))]
            poses = torch.cat([body, head, *hands], dim=1)
        return poses.reshape(len(poses), joints, 3)


def _along(
    directions: Float[Tensor, "vertices 3 known"], values: Float[Tensor, "frames numbers"], kind: str
) -> Float[Tensor, "frames vertices 3"]:
    """How far vertices move; numbers that the body has no direction for must be zeros."""
    known = directions.shape[2]
    if bool((values[:, known:] != 0).any()):
        raise InputError(f"The parameters name {values.shape[1]} {kind}, but the body's file knows {known}: take the "
                         "file that they were fitted with.")  # fmt: skip
    used = values[:, :known]
    return torch.einsum("vke,fe->fvk", directions[..., : used.shape[1]], used)


def read_smpl(path: Path) -> SmplBody:
    """A body from a file of the family.

    Raises:
        InputError: The file is missing, wants to run something, lacks a key, or its arrays do not fit together.
    """
    arrays = _load(path)
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}: it is no body of the SMPL family.")
    template, weights = np.asarray(arrays["v_template"], float), np.asarray(arrays["weights"], float)
    count, joints = weights.shape if weights.ndim == 2 else (0, 0)
    regressor = arrays["J_regressor"]
    regressor = np.asarray(regressor.todense() if hasattr(regressor, "todense") else regressor, float)
    parents = np.asarray(arrays["kintree_table"]).astype(np.int64)[0].tolist()
    directions = np.asarray(arrays["posedirs"], float)
    expected = {
        "v_template": (template.shape, (count, 3)),
        "J_regressor": (regressor.shape, (joints, count)),
        "kintree_table": ((len(parents),), (joints,)),
        "posedirs": (directions.shape, (count, 3, 9 * (joints - 1))),
        "shapedirs": (np.shape(arrays["shapedirs"])[:2], (count, 3)),
    }
    for key, (found, wanted) in expected.items():
        if tuple(found) != wanted:
            raise InputError(f"{path}: {key} is {list(found)}, but its {count} vertices and {joints} joints need "
                             f"{list(wanted)}.")  # fmt: skip
    # The root's parent is written as -1 or, unsigned, as 4294967295.
    chain = (-1, *(int(parent) for parent in parents[1:]))
    if any(not 0 <= parent < child for child, parent in enumerate(chain) if child):
        raise InputError(f"{path}: kintree_table names a parent that does not precede its child.")
    shapes = torch.from_numpy(np.asarray(arrays["shapedirs"], float)).float()
    expressions = None
    if joints == BODY + FACE + 2 * HAND and shapes.shape[2] > 10:
        # The files of SMPL-X have 300 shapes and 100 expressions, or 10 and 10.
        shapes, expressions = shapes.tensor_split([300 if shapes.shape[2] >= 400 else 10], dim=2)
    return SmplBody(
        torch.from_numpy(template).float(),
        torch.from_numpy(np.asarray(arrays["f"]).astype(np.int64)),
        shapes,
        torch.from_numpy(directions).float(),
        torch.from_numpy(regressor).float(),
        torch.from_numpy(weights).float(),
        chain,
        expressions,
        _hands(arrays, path),
    )


def _hands(arrays: Dict[str, Any], path: Path) -> Optional[Hands]:
    if not all(key in arrays for key in HAND_KEYS):
        return None
    values = [torch.from_numpy(np.asarray(arrays[key], float)).float() for key in HAND_KEYS]
    components, mean = values[:2], [value.flatten() for value in values[2:]]
    numbers = 3 * HAND
    if any(c.ndim != 2 or c.shape[1] != numbers or c.shape != components[0].shape for c in components) or any(
        len(m) != numbers for m in mean
    ):
        raise InputError(f"{path}: {', '.join(HAND_KEYS)} must have {numbers} columns, as hands of 15 joints do.")
    return Hands(torch.stack(components), torch.stack(mean))


def easymocap_motion(
    body: SmplBody,
    poses: Float[Tensor, "frames numbers"],
    betas: Float[Tensor, "shapes"],
    root_rotation: Float[Tensor, "frames 3"],
    root_translation: Float[Tensor, "frames 3"],
    blend_shapes: bool = True,
    expressions: Optional[Float[Tensor, "frames expressions"]] = None,
) -> BodyMotion:
    """A motion in EasyMocap's (and ZJU-MoCap's) convention: v = R(Rh) LBS(poses with the root at rest) + Th.

    Args:
        body: Any of the family.
        poses: As `SmplBody.whole_poses` knows them; the root's, which must be zero, do not count.
        betas: Shape.
        root_rotation: Rh, axis-angle about the world's origin.
        root_translation: Th, metres.
        blend_shapes: As for `SmplBody.shaped`.
        expressions: Likewise.

    Raises:
        InputError: The poses are of another body.
    """
    still = body.whole_poses(poses).clone()
    still[:, 0] = 0
    posed = body.shaped(betas, blend_shapes, expressions).pose(rotation_matrix(still))
    vertices = posed @ rotation_matrix(root_rotation).transpose(1, 2)
    rest = body.shaped(betas).rest_vertices
    return BodyMotion(vertices + root_translation[:, None], body.faces, root_rotation, root_translation, rest)


def from_smplx(
    body: SmplBody,
    betas: Float[Tensor, "shapes"],
    global_orient: Float[Tensor, "frames 3"],
    transl: Float[Tensor, "frames 3"],
) -> Tuple[Float[Tensor, "frames 3"], Float[Tensor, "frames 3"]]:
    """EasyMocap's Rh and Th of smplx's global_orient and transl.

    The rotation is the same, but about the world's origin instead of the pelvis J0 at rest: Th = transl + J0 - R J0.
    """
    pelvis = body.shaped(betas).joints[0]
    return global_orient, transl + pelvis - rotation_matrix(global_orient) @ pelvis


class _Numbers:
    """Stands for an object of chumpy: keeps its state and shows the array in it."""

    def __init__(self, *args: Any) -> None:
        self.state: Dict[str, Any] = {"x": args[0]} if args else {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {"x": state}

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        value = self.state.get("x", self.state.get("a"))
        if value is None:
            raise ValueError("a chumpy object without numbers")
        value = np.asarray(value, dtype)
        return value.reshape(self.state["idxs"].shape) if "idxs" in self.state and value.ndim == 1 else value


class _Careful(PlainUnpickler):
    """Reads arrays and containers, sparse matrices and chumpy's numbers, and refuses anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "chumpy":
            return _Numbers
        if module.startswith("scipy.sparse") and name in _SPARSE:
            return getattr(import_module("scipy.sparse"), name)
        return super().find_class(module, name)


def _load(path: Path) -> Dict[str, Any]:
    try:
        if path.suffix == ".npz":
            # Others may be Python objects, as SMPL-X's names of joints are, and nobody asks for them.
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in (*KEYS, *HAND_KEYS) if key in archive.files}
        with path.open("rb") as file:
            found = _Careful(file, encoding="latin1").load()
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}: SMPL's files come from its makers, after a form.") from error
    except Exception as error:
        raise InputError(f"{path} cannot be read as a body of the SMPL family ({error}).") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds a {type(found).__name__} where a body of the SMPL family is a dict.")
    return found
