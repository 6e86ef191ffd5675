"""Cameras along a path of the user's own, as nerfstudio's viewer writes it and `ns-render camera-path` reads it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError


@dataclass(frozen=True)
class CameraPath:
    """Cameras of one shape of pictures."""

    poses: Float[Tensor, "views 3 4"]
    """Camera to world, OpenGL axes."""
    fields_of_view: List[float]
    """From the upper to the lower edge, in radians."""
    aspect: float
    """Width over height."""


def read_camera_path(path: Path, farthest: Optional[float]) -> CameraPath:
    """The cameras of a file, in the units of a scene whose object lies inside the unit sphere about the origin.

    Args:
        path: JSON with a list ``camera_path``, whose entries hold ``camera_to_world`` (16 numbers, OpenGL axes),
            ``fov`` (degrees, from the upper to the lower edge) and ``aspect``.
        farthest: Cameras must stand nearer to the origin than this; none: anywhere outside the unit sphere.

    Raises:
        InputError: The file is missing or no camera path, or a camera is none that can draw the scene.
    """
    if not path.is_file():
        raise InputError(f"There is no camera path {path}: save one in the viewer (Render, Generate Command).")
    try:
        content = json.loads(path.read_text("utf8"))
        entries = content["camera_path"]
        kind = str(content.get("camera_type", "perspective"))
        shape = float(content["render_width"]) / float(content["render_height"]) if "render_width" in content else 1.0
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise InputError(f"{path} is no camera path ({type(error).__name__}: {error}): it must be JSON with a list "
                         "camera_path, as the viewer writes it.") from error  # fmt: skip
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} holds no cameras: add two keyframes or more in the viewer and save the path again.")
    if kind.lower() != "perspective":
        raise InputError(f"{path} wants pictures of the kind {kind}: only perspective ones are drawn.")
    cameras = [_Camera.of(entry, shape, f"Camera {k} of {path}", farthest) for k, entry in enumerate(entries)]
    for k, camera in enumerate(cameras):
        if abs(camera.aspect / cameras[0].aspect - 1) > 0.01:
            raise InputError(
                f"Camera {k} of {path} wants pictures of another shape ({camera.aspect:.3g}) than the first "
                f"({cameras[0].aspect:.3g}): give all of them one aspect."
            )
    if not any(camera.sees_the_object() for camera in cameras):
        raise InputError(
            f"No camera of {path} sees the object, which lies within 1 of the origin: the path belongs to another "
            "scene, or to a run that moved its cameras (--pipeline.datamanager.normalise file leaves them)."
        )
    poses = torch.tensor(np.stack([camera.pose for camera in cameras]), dtype=torch.float32)
    return CameraPath(poses, [camera.field_of_view for camera in cameras], cameras[0].aspect)


@dataclass(frozen=True)
class _Camera:
    pose: Float[np.ndarray, "3 4"]
    field_of_view: float
    aspect: float

    @classmethod
    def of(cls, entry: Any, shape: float, name: str, farthest: Optional[float]) -> "_Camera":
        """One entry of the list; `shape` is the aspect of those that have none."""
        try:
            matrix = np.asarray(entry["camera_to_world"], dtype=np.float64).reshape(4, 4)
            degrees, aspect = float(entry["fov"]), float(entry.get("aspect", shape))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{name} is none ({type(error).__name__}: {error}): camera_to_world of 16 numbers and fov are wanted."
            ) from error
        rotation, place = matrix[:3, :3], matrix[:3, 3]
        if not np.isfinite(matrix).all():
            raise InputError(f"{name} has a pose with numbers that are not finite: save the path again.")
        if np.abs(rotation.T @ rotation - np.eye(3)).max() > 0.01 or np.linalg.det(rotation) < 0:
            raise InputError(f"The pose of {name[0].lower()}{name[1:]} holds no rotation: save the path again.")
        if not 0 < degrees < 180 or not (math.isfinite(aspect) and aspect > 0):
            raise InputError(f"{name} has a fov of {degrees:g} degrees and an aspect of {aspect:g}: between 0 and 180 "
                             "and a positive one are wanted.")  # fmt: skip
        distance = float(np.linalg.norm(place))
        if distance <= 1:
            raise InputError(f"{name} stands {distance:.2f} from the origin, inside the sphere of radius 1 that the "
                             "object fills: move it out.")  # fmt: skip
        if farthest is not None and distance >= farthest:
            raise InputError(f"{name} stands {distance:.2f} from the origin, behind the background at {farthest:g}: "
                             "move it in, or leave the background out (--no-background).")  # fmt: skip
        return cls(matrix[:3], math.radians(degrees), aspect)

    def sees_the_object(self) -> bool:
        """Whether the unit sphere reaches into the circle around its picture."""
        distance = float(np.linalg.norm(self.pose[:, 3]))
        aside = math.acos(np.clip(self.pose[:, 2] @ self.pose[:, 3] / distance, -1, 1))
        corner = math.atan(math.tan(self.field_of_view / 2) * math.hypot(1, self.aspect))
        return aside < corner + math.asin(1 / distance)
