"""Triangle meshes, and those of an occupancy on a lattice."""

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError


@dataclass(frozen=True)
class Mesh:
    """Triangles wound outwards; colours in 0 to 255 per vertex where they are known."""

    verts: Float[np.ndarray, "verts 3"]
    faces: Int[np.ndarray, "faces 3"]
    colours: Optional[UInt8[np.ndarray, "verts 3"]] = None


def mesh_of_occupancy(volume: Float[Tensor, "x y z"], box: Float[Tensor, "2 3"], level: float) -> Mesh:
    """The surface around what is above a level on a lattice over a box, corners included; closed at its sides.

    Raises:
        InputError: Nothing is above the level; the message gives the highest value.
    """
    from skimage.measure import marching_cubes

    highest = float(volume.max())
    if highest <= level:
        raise InputError(
            f"There is no surface to export: the occupancy is nowhere above {highest:.3g}, and the surface is at "
            f"{level:g}; look at mask, keypoints and their depths, or train the network longer."
        )
    low, extent = (x.double().cpu().numpy() for x in (box[0], box[1] - box[0]))
    # A layer of emptiness all around closes what reaches the sides of the box.
    verts, faces, _, _ = marching_cubes(np.pad(level - volume.cpu().numpy(), 1, constant_values=level), 0.0)
    steps = np.array(volume.shape) - 1
    return Mesh(((verts - 1) / steps * extent + low).astype(np.float32), faces)


def largest_component(mesh: Mesh) -> Mesh:
    """The connected part with most faces."""
    return large_components(mesh, 1.0)[0]


def large_components(mesh: Mesh, share: float) -> Tuple[Mesh, int]:
    """The connected parts that are not small, and how many were left out.

    Args:
        mesh: Of any parts.
        share: Faces that a part has at least, over those of the part with most; 1 keeps that one alone, 0 all.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    a, b = mesh.faces[:, [0, 1]].T, mesh.faces[:, [1, 2]].T
    rows, columns = np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])
    links = coo_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(len(mesh.verts),) * 2)
    labels = connected_components(links, directed=False)[1]
    counts = np.bincount(labels[mesh.faces[:, 0]], minlength=labels.max() + 1)
    large = counts >= max(share * counts.max(), 1)
    if share >= 1:
        large = np.arange(len(counts)) == counts.argmax()
    keep = large[labels]
    renumbered = np.cumsum(keep) - 1
    faces = renumbered[mesh.faces[keep[mesh.faces[:, 0]]]]
    kept = Mesh(mesh.verts[keep], faces, None if mesh.colours is None else mesh.colours[keep])
    return kept, int((counts > 0).sum() - large.sum())
