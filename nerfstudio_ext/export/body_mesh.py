"""The surface of a trained person in any of its frames, as a mesh in metres."""

from typing import Any, Optional

import numpy as np

from nerfstudio_ext.export.scene_mesh import colour_mesh
from nerfstudio_ext.surface.isosurface import extract_mesh
from nerfstudio_ext.surface.mesh import Mesh, large_components

MARGIN = 0.1
"""Metres around the vertices that are searched."""
CHUNK = 2**21
"""Points at once; all but those near the body are dismissed quickly."""


def body_mesh(
    model: Any,
    number: int,
    resolution: int,
    level: float,
    half_side: Optional[float] = None,
    smallest_part: float = 1.0,
) -> Mesh:
    """The surface about the body in one frame, with colours.

    Args:
        model: Trained; offers `motion`, and `density(points, number)` per metre.
        number: Of the frame.
        resolution: Grid points along each side of the cube around the body.
        level: Density on the surface.
        half_side: Of that cube, metres; none: what the body needs.
        smallest_part: Faces that a connected part has at least, over those of the part with most; 1 keeps that alone.

    Raises:
        InputError: The density never crosses the level.
    """
    vertices = model.motion.vertices[number]
    low, high = vertices.amin(0), vertices.amax(0)
    centre = 0.5 * (low + high)
    if half_side is None:
        half_side = 0.5 * float((high - low).max()) + MARGIN

    def values(points):
        return level - model.density(points + centre.to(points), number)

    # Density says nothing about the distance to the surface, so no block of the grid may be skipped; large chunks, for
    # the codes are diffused once in each.
    mesh, _ = extract_mesh(values, resolution, half_side, model.device, chunk=CHUNK, coarse=False)
    mesh, _ = large_components(mesh, smallest_part)
    placed = Mesh((mesh.verts + centre.numpy()).astype(np.float32), mesh.faces)
    return colour_mesh(model, placed, time=number / max(len(model.motion.vertices) - 1, 1))
