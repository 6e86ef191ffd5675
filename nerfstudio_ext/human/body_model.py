"""A rigged body: what every body model of the suite comes down to. Metres; +z up; the body faces -y at rest."""

import gzip
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Dict, Iterator, Tuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.skinning import bone_transforms, rotation_matrix, skin


@dataclass(frozen=True)
class BodyModel:
    """A mesh at rest with joints and skinning weights; parents precede their children."""

    rest_vertices: Float[Tensor, "vertices 3"]
    faces: Int[Tensor, "faces 3"]
    joints: Float[Tensor, "joints 3"]
    """Where the bones turn, once bound."""
    parents: Tuple[int, ...]
    weights: Float[Tensor, "vertices joints"]
    joint_names: Tuple[str, ...]
    bind: Float[Tensor, "joints 4 4"]
    """Motion of each bone from the mesh at rest to the pose without rotations, in which `joints` are; often none."""

    def pose(self, rotations: Float[Tensor, "frames joints 3 3"]) -> Float[Tensor, "frames vertices 3"]:
        """Vertices of each frame; rotations are about the joints, in axes parallel to the world's."""
        transforms = bone_transforms(rotations, self.joints, self.parents) @ self.bind
        return skin(self.rest_vertices, self.weights, transforms)

    def pose_joints(self, rotations: Float[Tensor, "frames joints 3 3"]) -> Float[Tensor, "frames joints 3"]:
        """Where the joints of each frame are; rotations as for `pose`."""
        transforms = bone_transforms(rotations, self.joints, self.parents)
        return (transforms[..., :3] @ self.joints[:, :, None])[..., :3, 0] + transforms[..., :3, 3]

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


def anny_body(phenotype: Dict[str, float]) -> BodyModel:
    """The parametric body of the package `anny` (Apache-2.0 code, CC0 assets), which lies on this machine whole.

    The package works its tables out once per user and keeps them in its own cache.

    Args:
        phenotype: gender, age, muscle, weight, height, proportions, each in [0, 1] and 0.5 where it is not named.

    Raises:
        InputError: The package is not installed, or of another generation.
    """
    try:
        import anny  # noqa: F401
    except ImportError as error:
        raise InputError(
            "The procedural person needs the free body model anny: pip install 'nerfstudio-ext[human]'."
        ) from error
    try:
        model, faces = _anny_model()
        with torch.no_grad():
            shape = model(phenotype_kwargs=phenotype)
        parents = tuple(int(parent) for parent in model.bone_parents)
        return BodyModel(
            rest_vertices=shape["rest_vertices"][0].float(),
            faces=faces,
            joints=shape["bone_poses"][0, :, :3, 3].float(),
            parents=parents,
            weights=model.dense_vertex_bone_weights.float(),
            joint_names=tuple(model.bone_labels),
            bind=(shape["bone_poses"][0] @ torch.linalg.inv(shape["rest_bone_poses"][0])).float(),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"This version of anny is not one we know ({error}): install the one in requirements.lock."
        ) from error


@lru_cache(maxsize=1)
def _anny_model() -> Tuple[Any, Tensor]:
    """The package's model of all phenotypes, and its triangles; kept, for it takes seconds to build."""
    import anny

    with _quick_targets():
        model = anny.Anny(skinning_method="lbs")
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
    try:
        import anny
    except ImportError as error:
        raise InputError("Key points on the free body model need anny: pip install 'nerfstudio-ext[human]'.") from error
    model, _ = _anny_model()
    try:
        regressor = anny.KeypointsRegressor.coco(model)
        weights = dict(zip(regressor.labels, regressor.regression_weights.float()))
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"This version of anny is not one we know ({error}): install the one in requirements.lock."
        ) from error
    return {**weights, "mid_hip": 0.5 * (weights["left_hip"] + weights["right_hip"])}
