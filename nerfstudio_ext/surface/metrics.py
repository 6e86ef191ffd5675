"""How close two surfaces are, measured between points drawn evenly from both."""

from dataclasses import asdict, dataclass
from typing import Dict

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class SurfaceScores:
    """Distances in the unit of the points; `accuracy` from ours to the reference, `completeness` the other way."""

    accuracy: float
    completeness: float
    chamfer: float
    f_score: float
    normal_consistency: float

    def as_dict(self) -> Dict[str, float]:
        return asdict(self)


def sample_mesh(
    verts: Float[np.ndarray, "verts 3"], faces: Int[np.ndarray, "faces 3"], count: int, seed: int = 0
) -> tuple[Float[np.ndarray, "count 3"], Float[np.ndarray, "count 3"]]:
    """Points spread evenly over a triangle mesh, and the unit normals of their faces."""
    random = np.random.default_rng(seed)
    a, b, c = (verts[faces[:, k]].astype(np.float64) for k in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1)
    chosen = random.choice(len(faces), count, p=area / area.sum())
    u, v = np.sqrt(random.random(count))[:, None], random.random(count)[:, None]
    points = (1 - u) * a[chosen] + u * (1 - v) * b[chosen] + u * v * c[chosen]
    return points, cross[chosen] / area[chosen, None]


def compare_surfaces(
    points: Float[np.ndarray, "points 3"],
    normals: Float[np.ndarray, "points 3"],
    reference: Float[np.ndarray, "others 3"],
    reference_normals: Float[np.ndarray, "others 3"],
    threshold: float,
    max_distance: float = np.inf,
) -> SurfaceScores:
    """Mean nearest distances both ways, their mean (chamfer), F-score, and mean |cosine| of matched normals.

    Args:
        points: Drawn from the surface to judge.
        normals: Their unit normals.
        reference: Drawn from the true surface.
        reference_normals: Their unit normals.
        threshold: Distance within which the F-score calls a point right.
        max_distance: Larger distances are left out of the means, as the DTU protocol does; the F-score counts them.
    """
    from scipy.spatial import KDTree

    forth, match = KDTree(reference).query(points)
    back, match_back = KDTree(points).query(reference)
    accuracy, completeness = (float(d[d <= max_distance].mean()) for d in (forth, back))
    precision, recall = float((forth < threshold).mean()), float((back < threshold).mean())
    cosines = [
        np.abs((normals * reference_normals[match]).sum(1)).mean(),
        np.abs((reference_normals * normals[match_back]).sum(1)).mean(),
    ]
    return SurfaceScores(
        accuracy,
        completeness,
        (accuracy + completeness) / 2,
        2 * precision * recall / max(precision + recall, 1e-12),
        float(np.mean(cosines)),
    )
