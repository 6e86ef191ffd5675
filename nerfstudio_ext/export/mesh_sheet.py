"""A coloured mesh seen from all around, its colours above, its shape below: on one sheet, or as a film."""

import math
from pathlib import Path
from typing import Callable, Iterator, Optional

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from nerfstudio_ext.export.video import write_video
from nerfstudio_ext.procedural.casting import MeshCaster
from nerfstudio_ext.procedural.rigs import look_at_origin
from nerfstudio_ext.surface.mesh import Mesh

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
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(list(_turn(mesh, start, views, size, 0)), axis=1)).save(path)


def write_turntable(
    mesh: Mesh,
    path: Path,
    start: float,
    progress: Optional[Callable[[float], None]] = None,
    views: int = 48,
    size: int = 320,
    fps: float = 12.0,
) -> None:
    """Write a film of one whole turn around a mesh with +z up, colours and shape side by side.

    Args:
        mesh: With colours.
        path: To write, .mp4.
        start: Angle about +z, in radians from +x, of the first camera.
        progress: Told the share of the turn that is done.
        views: Pictures.
        size: Width and height of each of the two in pixels; even.
        fps: Pictures per second.

    Raises:
        InputError: The package embreex is missing, or the file cannot be written.
    """  # fmt: skip

    def frames() -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        for k, picture in enumerate(_turn(mesh, start, views, size, 1)):
            if progress is not None:
                progress((k + 1) / views)
            yield picture

    write_video(frames(), path, fps)


def _turn(mesh: Mesh, start: float, views: int, size: int, axis: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Colours and shape from each side, one above (axis 0) or beside (axis 1) the other."""
    assert mesh.colours is not None
    low, high = mesh.verts.min(0), mesh.verts.max(0)
    vertices = torch.from_numpy(mesh.verts - (low + high) / 2)
    radius = 1.05 * float(vertices.norm(dim=-1).max()) / math.sin(FIELD_OF_VIEW / 2)
    focal = size / 2 / math.tan(FIELD_OF_VIEW / 2)
    colours = torch.from_numpy(mesh.colours[:, :3] / 255).float()
    # The colours of a photo have its light in them.
    caster = MeshCaster(vertices, torch.from_numpy(mesh.faces.astype(np.int64)), colours, None)
    for k in range(views):
        turn = start + 2 * math.pi * k / views
        position = torch.tensor([[radius * math.cos(turn), radius * math.sin(turn), 0.0]])
        seen = caster.view(look_at_origin(position)[0], focal, size)
        facing = (seen.normals @ torch.nn.functional.normalize(position[0], dim=0)).clamp(min=0)
        shape: Float[torch.Tensor, "size size 3"] = (0.15 + 0.8 * facing)[..., None].expand(-1, -1, 3)
        pair = torch.cat(
            [torch.where(seen.mask[..., None], x, torch.ones_like(x)) for x in (seen.rgb, shape)], dim=axis
        )
        yield (pair * 255).round().to(torch.uint8).numpy()
