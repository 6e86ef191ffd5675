"""A coloured mesh seen from all around, on one sheet: its colours above, its shape below."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nerfstudio_ext.export.isosurface import Mesh
from nerfstudio_ext.procedural.casting import MeshCaster
from nerfstudio_ext.procedural.rigs import look_at_origin

FIELD_OF_VIEW = math.radians(24)


def write_sheet(mesh: Mesh, path: Path, start: float, views: int = 8, size: int = 256) -> None:
    """Write a PNG of a mesh with +z up, one column for each side.

    Args:
        mesh: With colours.
        path: To write.
        start: Angle about +z, in radians from +x, of the first camera.
        views: Columns, evenly around the mesh.
        size: Width and height of a picture in pixels.

    Raises:
        InputError: The package embreex is missing.
    """
    assert mesh.colours is not None
    low, high = mesh.verts.min(0), mesh.verts.max(0)
    vertices = torch.from_numpy(mesh.verts - (low + high) / 2)
    faces = torch.from_numpy(mesh.faces.astype(np.int64))
    radius = 1.05 * float(vertices.norm(dim=-1).max()) / math.sin(FIELD_OF_VIEW / 2)
    focal = size / 2 / math.tan(FIELD_OF_VIEW / 2)
    colours = torch.from_numpy(mesh.colours[:, :3] / 255).float()
    columns = []
    for k in range(views):
        turn = start + 2 * math.pi * k / views
        position = torch.tensor([[radius * math.cos(turn), radius * math.sin(turn), 0.0]])
        pose = look_at_origin(position)[0]
        # The light stands above the camera, so that every side is lit alike.
        seen = MeshCaster(vertices, faces, colours, position[0].numpy() + np.array([0, 0, radius])).view(
            pose, focal, size
        )
        facing = (seen.normals @ torch.nn.functional.normalize(position[0], dim=0)).clamp(min=0)
        shape = (0.15 + 0.8 * facing)[..., None].expand(-1, -1, 3)
        pair = torch.cat([torch.where(seen.mask[..., None], x, torch.ones_like(x)) for x in (seen.rgb, shape)])
        columns.append((pair * 255).round().to(torch.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(torch.cat(columns, dim=1).numpy()).save(path)
