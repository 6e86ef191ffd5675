"""`ns-ext mesh score`: an exported mesh against a scan."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

import tyro

DTU_SPACING, DTU_FARTHEST = 0.2, 20.0
"""Millimetres."""


@dataclass
class Score:
    """Distances between a mesh and a scan: accuracy (from the mesh to the scan), completeness (from the scan to the
    mesh), their mean, and with --threshold the F-score; in the units of the files. Each direction stands alone, too."""

    mesh: Annotated[Path, tyro.conf.Positional]
    """The mesh to judge (.ply, .obj, .glb, .stl, .off), as 'ns-ext export mesh' writes it."""
    scan: Annotated[Path, tyro.conf.Positional]
    """The truth in the same units and frame: a mesh, or a cloud of points (.ply, .xyz)."""
    spacing: Optional[float] = None
    """Meshes become points that are no closer than this; none: a five-hundredth of the scan's diagonal, or DTU's 0.2
    with --observed."""
    farthest: Optional[float] = None
    """Distances from this one on are left out; none: nothing is, or DTU's 20 with --observed."""
    threshold: Optional[float] = None
    """Distance within which a point is right; none: no F-score."""
    observed: Optional[Path] = None
    """DTU's ObsMaskN_10.mat of the scan: the mesh is judged where the scanner saw."""
    plane: Optional[Path] = None
    """DTU's PlaneN.mat: what of the scan lies below does not count."""
    output: Optional[Path] = None
    """JSON to write the scores to."""

    def main(self) -> None:
        import numpy as np

        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.surface.scan_scores import dense_points, read_observed_volume, scan_scores, thinned
        from nerfstudio_ext.surface.truth import read_mesh, read_points

        for name in ("spacing", "farthest", "threshold"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise InputError(f"--{name} {value:g} is no length: give a number above 0.")
        if self.plane is not None and self.observed is None:
            raise InputError("--plane belongs to --observed: give DTU's ObsMask file, too.")
        if self.output is not None and not self.output.parent.is_dir():
            raise InputError(f"There is no folder {self.output.parent} to write {self.output.name} into.")
        volume = None if self.observed is None else read_observed_volume(self.observed, self.plane)
        mesh, scan = read_mesh(self.mesh), read_points(self.scan)
        truth = scan if scan is not None else read_mesh(self.scan)
        places = truth if isinstance(truth, np.ndarray) else truth.verts
        diagonal = float(np.linalg.norm(np.ptp(places, axis=0)))
        spacing = self.spacing or (DTU_SPACING if volume else diagonal / 500)
        farthest = self.farthest or (DTU_FARTHEST if volume else np.inf)
        ours = thinned(dense_points(mesh, spacing), spacing)
        if not isinstance(truth, np.ndarray):
            truth = thinned(dense_points(truth, spacing, seed=1), spacing, seed=1)
        scores = scan_scores(ours, truth, volume, farthest, self.threshold)
        print(f"{len(ours):,} points of the mesh, {spacing:.3g} apart, against {len(truth):,} of the scan")
        for name, value in scores.items():
            print(f"{name:14} {value:.4g}")
        if self.output is not None:
            settings = {"spacing": spacing, "farthest": None if np.isinf(farthest) else farthest}
            settings |= {"threshold": self.threshold, "observed_volume": volume is not None}
            content = {"mesh": str(self.mesh), "scan": str(self.scan), "settings": settings, "results": scores}
            self.output.write_text(json.dumps(content, indent=2), "utf8")
