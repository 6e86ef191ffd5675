"""A rigged body: what every body model of the suite comes down to. Metres; +z up; the body faces -y at rest."""

import gzip
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.skinning import bone_transforms, rotation_matrix, skin


@dataclass(frozen=True)
class BodyModel:
    """A mesh at rest with joints and skinning weights, from whichever family; parents precede their children.

    Vertices and joints at rest may be those of several frames, as of a face that moves, which are then posed together.
    """

    rest_vertices: Float[Tensor, "*frames vertices 3"]
    faces: Int[Tensor, "faces 3"]
    joints: Float[Tensor, "*frames joints 3"]
    """Where the bones turn, once bound."""
    parents: Tuple[int, ...]
    weights: Float[Tensor, "vertices joints"]
    joint_names: Tuple[str, ...]
    bind: Float[Tensor, "joints 4 4"]
    """Motion of each bone from the mesh at rest to the pose without rotations, in which `joints` are; often none."""
    pose_directions: Optional[Float[Tensor, "vertices 3 features"]] = None
    """How the surface bends with the pose, for each number by which the joints' rotations, the first one's left out,
    differ from none; SMPL's pose blend shapes."""
    find_keypoints: Callable[[], Dict[str, Float[Tensor, "vertices"]]] = dict
    """Where joints that detectors find lie: weights of the vertices, by COCO's names."""

    def pose(self, rotations: Float[Tensor, "frames joints 3 3"]) -> Float[Tensor, "frames vertices 3"]:
        """Vertices of each frame; rotations are about the joints, in axes parallel to the world's."""
        transforms = bone_transforms(rotations, self.joints, self.parents) @ self.bind
        vertices = self.rest_vertices
        if self.pose_directions is not None:
            features = (rotations[:, 1:] - torch.eye(3)).flatten(1)
            vertices = vertices + torch.einsum("vkp,fp->fvk", self.pose_directions, features)
        return skin(vertices, self.weights, transforms)

    def pose_joints(self, rotations: Float[Tensor, "frames joints 3 3"]) -> Float[Tensor, "frames joints 3"]:
        """Where the joints of each frame are; rotations as for `pose`."""
        transforms = bone_transforms(rotations, self.joints, self.parents)
        return (transforms[..., :3] @ self.joints[..., None])[..., :3, 0] + transforms[..., :3, 3]

    def rotations(self, named: Dict[str, Float[Tensor, "frames 3"]]) -> Float[Tensor, "frames joints 3 3"]:
        """Joint rotations from axis-angle vectors by joint name; joints that are not named stay at rest.

        Raises:
            InputError: There is no such joint.
        """
        frames = len(next(iter(named.values())))
        vectors = self.rest_vertices.new_zeros(frames, len(self.parents), 3)
        for name, value in named.items():
            if name not in self.joint_names:
                raise InputError(f"The body has no joint '{name}': it has {', '.join(self.joint_names)}.")
            vectors[:, self.joint_names.index(name)] = value
        return rotation_matrix(vectors)


FACE_SHAPES: Tuple[str, ...] = (
    "cheek-bones-incr", "cheek-volume-incr", "ear-scale-incr", "ear-wing-incr", "eye-scale-incr", "eye-trans-out",
    "chin-height-incr", "chin-prominent-incr", "chin-width-incr", "chin-jaw-drop-incr", "eyebrows-angle-up",
    "eyebrows-trans-up", "forehead-scale-vert-incr", "forehead-temple-incr", "forehead-trans-forward", "head-fat-incr",
    "head-scale-depth-incr", "head-scale-horiz-incr", "mouth-lowerlip-volume-incr", "mouth-scale-horiz-incr",
    "mouth-trans-up", "mouth-upperlip-volume-incr", "nose-hump-incr", "nose-point-up", "nose-scale-depth-incr",
    "nose-scale-horiz-incr", "nose-scale-vert-incr", "nose-volume-incr",
)  # fmt: skip
"""What tells faces apart: local changes of `anny` in [-1, 1]; those of cheeks, ears and eyes are for both sides."""
_ON_BOTH_SIDES = ("cheek-", "ear-", "eye-")


def anny_body(phenotype: Dict[str, float]) -> BodyModel:
    """The parametric body of the package `anny` (Apache-2.0 code, CC0 assets), which lies on this machine whole.

    The package works its tables out once per user and keeps them in its own cache.

    Args:
        phenotype: gender, age, muscle, weight, height, proportions, each in [0, 1] and 0.5 where it is not named.

    Raises:
        InputError: The package is not installed, or of another generation.
    """
    _require_anny()
    return _shaped(False, phenotype_kwargs=phenotype)


def anny_face(phenotype: Dict[str, float], shape: Dict[str, float], actions: Dict[str, float]) -> BodyModel:
    """The same body with a face of its own and a facial expression, which are part of the mesh at rest.

    Args:
        phenotype: As for `anny_body`.
        shape: How far each of `FACE_SHAPES` goes, in [-1, 1].
        actions: Facial actions by ARKit's names (`jawOpen`, `mouthSmileLeft`, ...), in [0, 1].

    Raises:
        InputError: The package is not installed, or of another generation.
    """
    _require_anny()
    changes = {label: value for name, value in shape.items() for label in _both_sides(name)}
    return _shaped(True, phenotype_kwargs=phenotype, local_changes_kwargs=changes, facial_actions=actions)


@lru_cache(maxsize=1)
def anny_face_regions() -> Dict[str, Bool[Tensor, "vertices"]]:
    """Which vertices belong to the eyeballs, the tongue and the hollows behind lids and lips.

    Raises:
        InputError: The package is not installed, or of another generation.
    """
    _require_anny()
    with _known_anny():
        from anny.face_segmentation import get_face_segmentation_mask

        model, _ = _anny_model(True)
        parts = {
            "eyes": ["eye_front.L", "eye_front.R", "eye_back.L", "eye_back.R"],
            "sockets": ["eye_cavity.L", "eye_cavity.R"],
            "mouth": ["mouth_cavity"],
            "tongue": ["tongue"],
        }
        regions = {}
        for name, labels in parts.items():
            inside = torch.zeros(len(model.dense_vertex_bone_weights), dtype=torch.bool)
            inside[model.faces[get_face_segmentation_mask(model, labels)].flatten()] = True
            regions[name] = inside
    return regions


def _require_anny() -> None:
    try:
        import anny  # noqa: F401
    except ImportError as error:
        raise InputError(
            "The procedural person needs the free body model anny: pip install 'nerfstudio-ext[human]'."
        ) from error


@contextmanager
def _known_anny() -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"This version of anny is not one we know ({error}): install the one in requirements.lock."
        ) from error


def _shaped(face: bool, **kwargs: Any) -> BodyModel:
    """The body of some numbers, in the package's own words."""
    with _known_anny():
        model, faces = _anny_model(face)
        with torch.no_grad():
            shape = model(**kwargs)
        parents = tuple(int(parent) for parent in model.bone_parents)
        return BodyModel(
            rest_vertices=shape["rest_vertices"][0].float(),
            faces=faces,
            joints=shape["bone_poses"][0, :, :3, 3].float(),
            parents=parents,
            weights=model.dense_vertex_bone_weights.float(),
            joint_names=tuple(model.bone_labels),
            bind=(shape["bone_poses"][0] @ torch.linalg.inv(shape["rest_bone_poses"][0])).float(),
            find_keypoints=anny_keypoints,
        )


def _both_sides(name: str) -> Tuple[str, ...]:
    return (f"l-{name}", f"r-{name}") if name.startswith(_ON_BOTH_SIDES) else (name,)


@lru_cache(maxsize=2)
def _anny_model(face: bool) -> Tuple[Any, Tensor]:
    """The package's model of all phenotypes, with facial actions if need be, and its triangles; kept, for it takes
    seconds to build."""
    import anny

    more: Dict[str, Any] = {}
    if face:
        more = {
            "facial_actions": "all",
            "local_changes": [label for name in FACE_SHAPES for label in _both_sides(name)],
        }
    with _quick_targets():
        model = anny.Anny(skinning_method="lbs", **more)
    return model, model.get_triangular_faces()


@contextmanager
def _quick_targets() -> Iterator[None]:
    """Read anny's hundreds of shape files with numpy: its own loop over lines makes the first use last minutes."""
    from anny.models import full_model

    slow = full_model.load_blend_shape

    def quick(filename: str, vertices_count: int, world_transformation: Any, dtype: torch.dtype) -> Tensor:
        with gzip.open(filename) as file:
            rows = np.array(file.read().split(), dtype=np.float64).reshape(-1, 4)
        shape = torch.zeros((vertices_count, 3), dtype=dtype)
        shape[torch.from_numpy(rows[:, 0].astype(np.int64))] = torch.from_numpy(rows[:, 1:]).to(dtype)
        return world_transformation.apply(shape)

    full_model.load_blend_shape = quick
    try:
        yield
    finally:
        full_model.load_blend_shape = slow


@lru_cache(maxsize=1)
def anny_keypoints() -> Dict[str, Float[Tensor, "vertices"]]:
    """Where joints that detectors find lie on the body of `anny`: weights of the vertices, by COCO's names, with feet.

    Raises:
        InputError: The package is not installed, or of another generation.
    """
    _require_anny()
    import anny

    with _known_anny():
        model, _ = _anny_model(False)
        regressor = anny.KeypointsRegressor.coco(model)
        weights = dict(zip(regressor.labels, regressor.regression_weights.float()))
    return {**weights, "mid_hip": 0.5 * (weights["left_hip"] + weights["right_hip"])}
