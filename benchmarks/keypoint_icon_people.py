"""Meshes of unseen people from one drawn photo each, against what needs no network: the naked body in the true pose,
and all that projects into the silhouette; how many points the lattice asks for; what a query costs.

Run from the repository's root:  python -m benchmarks.keypoint_icon_people [--run FOLDER] [--people 8]
Without a run, the weights that come with the suite are measured. Distances are in centimetres, between 10,000 points of
either surface; nothing is aligned, since the photos are calibrated.
"""

import argparse
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import torch

from benchmarks._harness import Row, interleaved_seconds, timed, write_rows
from nerfstudio_ext.cli.reconstruct import load_network
from nerfstudio_ext.export.isosurface import Mesh, largest_component, mesh_of_occupancy
from nerfstudio_ext.fields.photo_surface import COARSE, PhotoSurface
from nerfstudio_ext.human.keypoint_encoding import encode_points
from nerfstudio_ext.human.photo import Photo
from nerfstudio_ext.procedural.people import PeopleOptions, ProceduralPeople
from nerfstudio_ext.surface.metrics import SurfaceScores, compare_surfaces, sample_mesh

POINTS = 10_000
TRAIN = 80
"""People of the preset; the test people's numbers begin there."""


class Everything:
    """A network that calls every point inside: its surface is the silhouette's hull in the box of the keypoints."""

    def logits(self, encoded: Any, points: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 1, points.shape[1]), 9.0)


def mesh_of(field: Any, photo: Photo, encoded: Any, levels: int) -> Tuple[Mesh, PhotoSurface]:
    surface = PhotoSurface(field, encoded, levels, 0.5)
    return largest_component(mesh_of_occupancy(surface.volume, surface.box, 0.5)), surface


def scores(verts: np.ndarray, faces: np.ndarray, truth: Tuple[np.ndarray, np.ndarray]) -> SurfaceScores:
    return compare_surfaces(*sample_mesh(verts, faces, POINTS), *truth, threshold=0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("default"))
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--levels", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    config, field = load_network(arguments.run)
    people = ProceduralPeople(PeopleOptions(), TRAIN, arguments.people)
    found: Dict[str, List[SurfaceScores]] = {"ours": [], "naked body": [], "silhouette hull": []}
    rows, shares, seconds = [], [], []
    for index in range(TRAIN, TRAIN + arguments.people):
        photo = Photo.of(people.subject(index), 0, config.photo_size, torch.device("cpu"))
        verts, faces = (x.numpy() for x in people.mesh(index))
        truth = sample_mesh(verts, faces, POINTS, seed=1)
        start = time.perf_counter()
        encoded = field.encode(photo, field.sides(photo))
        mesh, surface = mesh_of(field, photo, encoded, arguments.levels)
        seconds.append(time.perf_counter() - start)
        side = (COARSE - 1) * 2**arguments.levels + 1
        shares.append(side**3 / surface.evaluated)
        hull, _ = mesh_of(Everything(), photo, encoded, arguments.levels)
        body = people.person(index)[0].body.numpy()
        for name, shape in (("ours", (mesh.verts, mesh.faces)), ("naked body", (body, faces)),
                            ("silhouette hull", (hull.verts, hull.faces))):  # fmt: skip
            found[name].append(scores(*shape, truth))
        own = found["ours"][-1]
        print(people.name(index), {name: round(100 * values[-1].chamfer, 2) for name, values in found.items()})
        rows.append(Row(f"keypoint-icon/person-{index - TRAIN}", "chamfer; baseline: silhouette hull",
                        round(100 * own.chamfer, 2), round(100 * found["silhouette hull"][-1].chamfer, 2), "cm", None,
                        1, None, None))  # fmt: skip
    measures = (
        ("chamfer", "chamfer", 100, "cm"),
        ("p2s", "completeness", 100, "cm"),
        ("normal-consistency", "normal_consistency", 1, ""),
    )
    for name in ("silhouette hull", "naked body"):
        for what, key, factor, unit in measures:
            own, other = (np.array([getattr(s, key) for s in found[n]]) * factor for n in ("ours", name))
            gated = name == "silhouette hull" and key == "chamfer"
            claim = f"keypoint-icon/{name.replace(' ', '-')}-{what}"
            text = f"{what}, mean of {len(own)} unseen people; baseline: {name}"
            means = (round(float(own.mean()), 3), round(float(other.mean()), 3))
            better = bool(own.mean() < other.mean()) if gated else None
            apart = round(float((own - other).std()), 3)
            rows.append(Row(claim, text, *means, unit, apart, 1, "< baseline" if gated else None, better))
    share, duration = float(np.mean(shares)), float(np.median(seconds))
    text = f"points of a {side}^3 lattice per point that the network is asked"
    rows.append(Row("keypoint-icon/speed/lattice", text, round(share, 1), None, "x", None, 1, ">= 8x", share >= 8))
    text = "photo in memory to mesh, seconds"
    rows.append(Row("keypoint-icon/speed/mesh", text, round(duration, 2), None, "s", None, 1, "< 60 s", duration < 60))
    write_rows("keypoint_icon_people", [*rows, query_speed(people)])


def query_speed(people: ProceduralPeople) -> Row:
    """Seconds per 500 queries of the relative encoding, and of the signed distance to the naked body."""
    import trimesh

    person = people.person(TRAIN)[0]
    body = trimesh.Trimesh(person.body.numpy(), person.faces.numpy(), process=False)
    points = torch.rand(500, 3) * 1.6 - 0.8
    camera = torch.eye(3, 4)[None]
    actions = {
        "keypoints": timed(lambda: encode_points(points, person.keypoints, camera, "rel_z_decay", 1, 0.2)),
        "signed distance": timed(lambda: trimesh.proximity.signed_distance(body, points.numpy())),
    }
    own, other = (float(np.median(x)) for x in interleaved_seconds(actions, 3, 1).values())
    return Row("keypoint-icon/speed/query", "500 encodings; baseline: signed distance to a body (trimesh)",
               round(own, 4), round(other, 4), "s", None, 1, ">= 10x", other / own >= 10)  # fmt: skip


if __name__ == "__main__":
    main()
