"""A mesh against a scan, as benchmarks of real objects do it: DTU's protocol, and either direction alone.

DTU (Jensen et al. 2014; in the form that the neural-surface papers report): points thinned to an even density, our
points kept in the volume that the scanner saw, the scan's above its table, and what lies far from the other surface
left out. All lengths are in the unit of the files, which is millimetres for DTU.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
from jaxtyping import Bool, Float, Int

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.surface.mesh import Mesh
from nerfstudio_ext.surface.metrics import sample_mesh

Points = Float[np.ndarray, "points 3"]
MARGIN = 60.0
"""How far beyond its box, in DTU's millimetres, the observed volume's scan counts as close enough to be judged."""
DENSITY = 2.0
"""Points that are drawn on a square of the spacing's side, before they are thinned."""
MOST_POINTS = 20_000_000
"""More are refused rather than waited for; a DTU scan at 0.2 mm has a few million."""


@dataclass(frozen=True)
class ObservedVolume:
    """Where a DTU scan was observed, and its table (`ObsMaskN_10.mat` and `PlaneN.mat`)."""

    seen: Bool[np.ndarray, "x y z"]
    """Voxels in which a surface would have been scanned."""
    box: Float[np.ndarray, "2 3"]
    """Centres of the first and of the last voxel."""
    voxel: float
    """Side of a voxel."""
    plane: Optional[Float[np.ndarray, "4"]] = None
    """The table: points x with plane . (x, 1) > 0 are above it; none: all are."""

    def judged(self, points: Points) -> Bool[np.ndarray, "points"]:
        """Which of our points lie in voxels that were seen."""
        voxels = np.around((points - self.box[0]) / self.voxel).astype(int)
        inside = ((voxels >= 0) & (voxels < self.seen.shape)).all(1)
        inside[inside] = self.seen[tuple(voxels[inside].T)]
        return inside

    def near(self, points: Points) -> Bool[np.ndarray, "points"]:
        """Which of our points may be the nearest to a point of the scan."""
        return ((points >= self.box[0] - MARGIN) & (points < self.box[1] + 2 * MARGIN)).all(1)

    def above(self, points: Points) -> Bool[np.ndarray, "points"]:
        """Which of the scan's points are not of the table."""
        if self.plane is None:
            return np.ones(len(points), bool)
        return points @ self.plane[:3] + self.plane[3] > 0


def read_observed_volume(mask: Path, plane: Optional[Path]) -> ObservedVolume:
    """DTU's files of one scan.

    Raises:
        InputError: A file is missing, is no .mat file, or lacks what it should hold.
    """
    found = _read_mat(mask, ("ObsMask", "BB", "Res"))
    table = None if plane is None else _read_mat(plane, ("P",))["P"].astype(np.float64).reshape(-1)
    if found["ObsMask"].ndim != 3 or found["BB"].shape != (2, 3) or (table is not None and table.shape != (4,)):
        raise InputError(f"{mask} and {plane} are not DTU's: ObsMask has three axes, BB is 2x3 and P has four numbers.")
    return ObservedVolume(found["ObsMask"] > 0, found["BB"].astype(np.float64), float(found["Res"].item()), table)


def _read_mat(path: Path, names: tuple[str, ...]) -> Dict[str, Any]:
    from scipy.io import loadmat

    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        content = loadmat(path)
    except Exception as error:  # of many classes, one for each format version
        raise InputError(f"{path} cannot be read as a .mat file ({error}).") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise InputError(f"{path} holds no {' and no '.join(missing)}: give the file that comes with DTU's scans.")
    return content


def dense_points(mesh: Mesh, spacing: float, seed: int = 0) -> Points:
    """Points spread over a mesh so densely that it pays to thin them to the spacing.

    Raises:
        InputError: The spacing is so small that they would be too many.
    """
    a, b, c = (mesh.verts[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    area = 0.5 * float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())
    count = int(np.ceil(DENSITY * area / spacing**2))
    if count > MOST_POINTS:
        raise InputError(
            f"Points {spacing:g} apart on a surface of {area:.3g} square units would be {count:,}: give a larger "
            f"--spacing, as {np.sqrt(DENSITY * area / 1e6):.2g}."
        )
    return sample_mesh(mesh.verts, mesh.faces, max(count, 1), seed)[0]


def thinned(points: Points, spacing: float, seed: int = 0) -> Points:
    """Some of the points, in random order, none closer than the spacing to one that was kept before."""
    from scipy.spatial import KDTree

    order = np.random.default_rng(seed).permutation(len(points))
    points = points[order]
    neighbours: Int[np.ndarray, "pairs 2"] = KDTree(points).query_pairs(spacing, output_type="ndarray")
    # Pairs by their earlier point: one pass in that order decides each point before its later neighbours ask for it.
    neighbours = neighbours[np.argsort(neighbours[:, 0], kind="stable")]
    starts = np.searchsorted(neighbours[:, 0], np.arange(len(points) + 1))
    kept = np.ones(len(points), bool)
    for k in np.flatnonzero(np.diff(starts)):
        if kept[k]:
            kept[neighbours[starts[k] : starts[k + 1], 1]] = False
    return points[kept]


def scan_scores(
    ours: Points,
    scan: Points,
    volume: Optional[ObservedVolume] = None,
    farthest: float = np.inf,
    threshold: Optional[float] = None,
) -> Dict[str, float]:
    """Distances between two clouds of even density.

    Args:
        ours: On the surface to judge.
        scan: On the true one.
        volume: Where the scan was observed; none: everywhere.
        farthest: Larger distances are left out of the means.
        threshold: Distance within which the F-score calls a point right; none: no F-score.

    Returns:
        ``accuracy`` (from ours to the scan), ``completeness`` (from the scan to ours), ``chamfer`` (their mean),
        ``left_out_ours`` and ``left_out_scan`` (shares beyond `farthest`), and ``f_score``.

    Raises:
        InputError: Nothing lies in the observed volume, or within `farthest` of the other surface.
    """
    from scipy.spatial import KDTree

    judged, candidates, truth = ours, ours, scan
    if volume is not None:
        judged, candidates, truth = ours[volume.judged(ours)], ours[volume.near(ours)], scan[volume.above(scan)]
    if not len(judged) or not len(truth):
        raise InputError(
            "Nothing of the mesh lies where the scan was observed: both must be in the scan's units and frame (a mesh "
            "of 'ns-ext export mesh' is, without --normalised)."
        )
    forth, back = KDTree(scan).query(judged)[0], KDTree(candidates).query(truth)[0]
    near = [distances[distances < farthest] for distances in (forth, back)]
    if not all(map(len, near)):
        nearest = min(float(forth.min()), float(back.min()))
        raise InputError(f"No point is within {farthest:g} of the other surface; the nearest is {nearest:.3g} away.")
    accuracy, completeness = (float(distances.mean()) for distances in near)
    scores = {"accuracy": accuracy, "completeness": completeness, "chamfer": (accuracy + completeness) / 2}
    for name, distances in (("left_out_ours", forth), ("left_out_scan", back)):
        scores[name] = float((distances >= farthest).mean())
    if threshold is not None:
        precision, recall = float((forth < threshold).mean()), float((back < threshold).mean())
        scores["f_score"] = 2 * precision * recall / max(precision + recall, 1e-12)
    return scores
