"""Scanned people as a network that reconstructs surfaces learns from them: the lessons of drawn ones, from files."""

from functools import lru_cache
from typing import Tuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.icon_layout import IconLayout, ScanView
from nerfstudio_ext.procedural.casting import MeshCaster
from nerfstudio_ext.procedural.scans import Scan, ScanOptions, draw_points

OPEN_EDGES = 0.05
"""Metres that the edges of all holes of a scan measure together, at most; a larger one hides from what is inside."""
KEPT = 1024
"""People whose labelled points stay in memory; 100,000 take 1.6 MB."""


class ScannedPeople:
    """Each access is one random picture of a person.

    Args:
        layout: Who they are.
        size: Side in pixels that pictures are resized to.
        points: Labelled points drawn for each person.
    """

    def __init__(self, layout: IconLayout, size: int, points: int) -> None:
        self._layout, self._size, self._options = layout, size, ScanOptions(points=points)
        self._points = lru_cache(KEPT)(self._labelled)

    def __len__(self) -> int:
        return len(self._layout)

    def __getitem__(self, index: int) -> Scan:
        yaws = self._layout.yaws(index)
        view = self._layout.view(index, yaws[int(torch.randint(len(yaws), ()))])
        if view.normals is None or view.back_normals is None:
            raise InputError(f"{self._layout.names[index]} lacks pictures of normals, normal_F and normal_B.")
        points, inside = self._points(index)
        rgb, normals, back = (self._resized(view, x) for x in (view.rgb, view.normals, view.back_normals))
        return Scan(
            rgb=(rgb * 255).round().to(torch.uint8),
            # Nobody knows the far side's colours; the near side's, seen through, are nearest to them.
            back_rgb=(rgb * 255).round().to(torch.uint8),
            normals=(F.normalize(normals, dim=1) * 127).round().to(torch.int8),
            back_normals=(F.normalize(back, dim=1) * 127).round().to(torch.int8),
            camera=view.camera,
            keypoints=view.keypoints,
            points=points,
            inside=inside,
        )

    def _resized(self, view: ScanView, picture: Float[Tensor, "3 height width"]) -> Float[Tensor, "1 3 size size"]:
        """Averaged over the person alone, so that nothing comes in from beside it."""
        both = torch.cat([picture * view.mask, view.mask])[None]
        small = F.interpolate(both, (self._size, self._size), mode="area")
        return small[:, :3] / small[:, 3:].clamp(min=1e-3) * (small[:, 3:] > 0.5)

    def _labelled(self, index: int) -> Tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
        vertices, faces = self._layout.mesh(index)
        _require_closed(vertices, faces, self._layout.names[index])
        points = draw_points(vertices, faces, self._options, np.random.default_rng(index))
        caster = MeshCaster(vertices, faces, torch.zeros_like(vertices), None)
        return points, torch.from_numpy(caster.contains(points.numpy())).float()


def _require_closed(vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"], name: str) -> None:
    """Refuse a scan of which nobody can say what is inside: rays leave through its holes uncounted.

    Raises:
        InputError: It has holes.
    """
    import trimesh

    # Vertices that textures have split are one again.
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=True)
    single = trimesh.grouping.group_rows(mesh.edges_sorted, require_count=1)
    ends = mesh.vertices[mesh.edges_sorted[single]]
    length = float(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).sum())
    if length > OPEN_EDGES:
        raise InputError(
            f"The scan of {name} is open (the edges of its holes measure {length:.2f} m): close it, as by Poisson "
            "reconstruction, or leave it out of the list of names."
        )
