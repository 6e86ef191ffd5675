"""From a trained model to a mesh in the user's own units: field values, vertex colours, frames."""

from typing import Any, Optional

import numpy as np
import torch
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor, nn

from nerfstudio_ext.surface.isosurface import Values
from nerfstudio_ext.surface.mesh import Mesh

OFFSET = 0.02
"""How far before a vertex the ray that looks at it starts, in units of the normalised scene."""


def surface_values(model: nn.Module, level: float, offset: float = 0.0) -> Optional[Values]:
    """What is negative inside the model's object: a signed distance, or the level less the density; None for neither.

    Args:
        model: Trained; offers `signed_distance(points)` or `density(points)`, or a nerfstudio field with `density_fn`.
        level: Density on the surface.
        offset: How far outside of distance 0 the surface is, in scales of the model's density, where it has one.
    """
    distance: Any = getattr(model, "signed_distance", None)
    if distance is not None:
        scale = getattr(getattr(model, "density", None), "beta", None)
        if not offset or scale is None:
            return distance
        shift = offset * float(scale)
        return lambda points: distance(points) - shift
    own: Any = getattr(model, "density", None)
    # A VolSDF-like model keeps a module of that name, which takes distances; it has returned above.
    if own is not None:
        return lambda points: level - own(points)
    density: Any = getattr(getattr(model, "field", None), "density_fn", None)
    if density is None:
        return None
    return lambda points: level - density(points)[..., 0]


@torch.no_grad()
def colour_mesh(model: Any, mesh: Mesh, chunk: int = 8192, time: Optional[float] = None) -> Mesh:
    """The mesh with the colours that the model shows when its vertices are looked at from just outside.

    Args:
        model: Trained.
        mesh: In the model's own frame.
        chunk: Rays at once.
        time: In [0, 1], for models whose scene moves; none: as the model takes rays without one.
    """
    verts = torch.from_numpy(mesh.verts)
    directions = -torch.from_numpy(vertex_normals(mesh))
    direct = getattr(model, "surface_colours", None)
    colours = []
    for points, views in zip(verts.split(chunk), directions.split(chunk)):
        if direct is not None:
            colours.append(direct(points.to(model.device), views.to(model.device)).cpu())
            continue
        ones = torch.ones_like(points[:, :1])
        bundle = RayBundle(
            origins=points - OFFSET * views,
            directions=views,
            pixel_area=ones,
            camera_indices=torch.zeros_like(ones, dtype=torch.long),
            times=None if time is None else torch.full_like(ones, time),
        )
        colours.append(model.get_outputs(bundle.to(model.device))["rgb"].cpu())
    rgb = (torch.cat(colours).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return Mesh(mesh.verts, mesh.faces, rgb)


def vertex_normals(mesh: Mesh) -> np.ndarray:
    """Unit normals, averaged over the faces that meet in a vertex, weighted by area."""
    a, b, c = (mesh.verts[mesh.faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    normals = np.zeros_like(mesh.verts)
    for k in range(3):
        np.add.at(normals, mesh.faces[:, k], cross)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def to_source_units(mesh: Mesh, dataparser_outputs: Any) -> Mesh:
    """Undo what the dataparser and the normalisation did to the world: x_trained = scale (R x_source + t)."""
    transform: Tensor = dataparser_outputs.dataparser_transform.double().cpu()
    rotation, translation = transform[:3, :3].numpy(), transform[:3, 3].numpy()
    verts = (mesh.verts.astype(np.float64) / dataparser_outputs.dataparser_scale - translation) @ np.linalg.inv(
        rotation
    ).T
    return Mesh(verts.astype(np.float32), mesh.faces, mesh.colours)
