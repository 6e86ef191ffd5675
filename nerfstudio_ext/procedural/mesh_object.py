"""A triangle mesh as the object of a drawn scene: from a file, turned upright and brought into the unit sphere."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Tuple

import numpy as np
import torch
from jaxtyping import Float, Int

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.casting import MeshCaster
from nerfstudio_ext.procedural.objects import LIGHT

ENDINGS = (".obj", ".ply", ".glb", ".stl", ".off")
REACH = 0.95
"""Distance of the farthest vertex from the origin; all objects lie inside the unit sphere."""
Up = Literal["z", "y"]


class MeshObject:
    """Colours are those of the vertices, or of the texture where they lie in it; a mesh of one colour gets soft bands,
    since plain surfaces show nothing to hold on to.

    Args:
        path: Of one of `ENDINGS`.
        up: The file's axis that points up; +z does in the scene.

    Raises:
        InputError: The file is missing, cannot be read, or holds no triangles.
    """

    def __init__(self, path: Path, up: Up) -> None:
        import trimesh

        if not path.is_file():
            raise InputError(f"There is no mesh {path}: give a file ({', '.join(ENDINGS)}) or the name of an object.")
        try:
            loaded: Any = trimesh.load(path, force="mesh", process=False)
            faces = np.asarray(loaded.faces)
            verts = np.asarray(loaded.vertices, dtype=np.float64)
            visual = loaded.visual.to_color() if loaded.visual.kind == "texture" else loaded.visual
            rgb = np.asarray(visual.vertex_colors)[:, :3] / 255
        except Exception as error:  # of many classes, one for each format
            raise InputError(f"{path} cannot be read as a mesh ({error}): write it again.") from error
        if not len(faces) or not np.isfinite(verts).all():
            raise InputError(f"{path} holds no triangles, or numbers that are not finite: write it again.")
        verts = verts - (verts.min(0) + verts.max(0)) / 2
        verts = verts @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]) if up == "y" else verts
        verts *= REACH / np.linalg.norm(verts, axis=1).max()
        if float(np.ptp(rgb, axis=0).max()) < 0.02:
            rgb = 0.5 + 0.35 * np.sin(7 * verts + np.array([0.0, 2.0, 4.0]))
        # Vertices that a texture has split are one again, so that normals are smooth across its seams.
        places, first, of = np.unique(verts, axis=0, return_index=True, return_inverse=True)
        self.verts: Float[np.ndarray, "verts 3"] = places.astype(np.float32)
        self.faces: Int[np.ndarray, "faces 3"] = of.reshape(-1)[faces]
        self.colours: Float[np.ndarray, "verts 3"] = rgb[first].astype(np.float32)
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()

    @cached_property
    def caster(self) -> MeshCaster:
        """Casts rays at it under the light of all objects."""
        verts, faces, colours = (torch.from_numpy(x) for x in (self.verts, self.faces, self.colours))
        return MeshCaster(verts, faces, colours, LIGHT.double().numpy())

    def mesh(self) -> Tuple[Float[np.ndarray, "verts 3"], Int[np.ndarray, "faces 3"]]:
        """The surface itself."""
        return self.verts, self.faces
