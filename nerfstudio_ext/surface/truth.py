"""A fitted surface against the true one, where that is known."""

from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
import torch
from jaxtyping import Float

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.surface.isosurface import Values, extract_mesh
from nerfstudio_ext.surface.mesh import Mesh, largest_component
from nerfstudio_ext.surface.metrics import compare_surfaces, sample_mesh

RESOLUTION, HALF_SIDE = 96, 1.5
"""Grid points along each side of the cube about the origin in which the surface is looked for, and half that side."""
POINTS = 200_000
"""Drawn from each surface. The distance between two such draws of one surface is what a perfect mesh scores: a
three-hundredth of the side of a cube."""
RIGHT = 0.05
"""Units of the trained frame within which the F-score calls a point right."""


def read_mesh(path: Path) -> Mesh:
    """Triangles of a mesh file.

    Raises:
        InputError: It cannot be read, or holds no triangles.
    """
    import trimesh

    try:
        mesh: Any = trimesh.load(path, force="mesh", process=False)
        verts, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces)
    except Exception as error:  # of many classes, one for each format
        raise InputError(f"{path} cannot be read as a mesh ({error}): write it again, or remove it.") from error
    if not len(faces):
        raise InputError(f"{path} holds no triangles: write it again, or remove it.")
    return Mesh(verts, faces)


def read_points(path: Path) -> Optional[Float[np.ndarray, "points 3"]]:
    """Points of a file that holds a cloud; None where it holds a mesh.

    Raises:
        InputError: It cannot be read, or holds neither.
    """
    import trimesh

    try:
        content: Any = trimesh.load(path, process=False)
    except Exception as error:  # of many classes, one for each format
        raise InputError(f"{path} cannot be read as points or as a mesh ({error}).") from error
    if not isinstance(content, trimesh.PointCloud):
        return None
    points = np.asarray(content.vertices, dtype=np.float64)
    if not len(points) or not np.isfinite(points).all():
        raise InputError(f"{path} holds {'points that are not finite' if len(points) else 'no points'}.")
    return points


def surface_scores(distance: Values, truth: Mesh, device: torch.device, unit: float) -> Dict[str, float]:
    """`chamfer` (mean of both directions), `surface_accuracy` (from ours to the truth), `surface_completeness` (the
    other way), `f_score` and `normal_consistency` of a field's largest connected surface.

    Args:
        distance: The field, negative inside.
        truth: In the trained frame, outwards.
        device: Where the field is evaluated.
        unit: Length of one unit of the trained frame in the unit of the distances that are returned.

    Raises:
        InputError: The field never changes its sign.
    """
    mesh = largest_component(extract_mesh(distance, RESOLUTION, HALF_SIDE, device)[0])
    found = sample_mesh(mesh.verts, mesh.faces, POINTS)
    scores = compare_surfaces(*found, *sample_mesh(truth.verts, truth.faces, POINTS, seed=1), threshold=RIGHT)
    return {
        "chamfer": scores.chamfer * unit,
        "surface_accuracy": scores.accuracy * unit,
        "surface_completeness": scores.completeness * unit,
        "f_score": scores.f_score,
        "normal_consistency": scores.normal_consistency,
    }
