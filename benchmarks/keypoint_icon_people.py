"""Meshes of unseen people from one drawn photo each, against what needs no network: the naked body in the true pose,
and all that projects into the silhouette; what the refined lattice saves; what a query costs (claims 3 and 10).

Run from the repository's root:  python -m benchmarks.keypoint_icon_people [--run FOLDER] [--poses easy hard]
Without a run, the weights that come with the suite are measured. Scores are those of `PersonScores`, in centimetres;
nothing is aligned, since the photos are calibrated. Angles of easy poses are 0.4 times, of hard ones 1.5 times as large
as training draws them.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import torch

from benchmarks._harness import Row, interleaved_seconds, timed, write_rows
from nerfstudio_ext.cli.reconstruct import load_network
from nerfstudio_ext.fields.photo_surface import COARSE, PhotoSurface
from nerfstudio_ext.human.keypoint_encoding import encode_points
from nerfstudio_ext.human.photo import Photo
from nerfstudio_ext.procedural.people import PeopleOptions, ProceduralPeople
from nerfstudio_ext.surface.mesh import Mesh, largest_component, mesh_of_occupancy
from nerfstudio_ext.surface.person_scores import PersonScores, person_scores

TRAIN = 80
"""People of the preset; the test people's numbers begin there."""
POSES = {"easy": 0.4, "usual": 1.0, "hard": 1.5}
QUERIES = 100_000
OCTAVES = (1, 3)
"""Frequencies of the released encoding, and of keypoint-icon-tiny's."""
MEASURES = (("chamfer_cm", "cm"), ("p2s_cm", "cm"), ("nc", ""))


class Everything:
    """A network that calls every point inside: its surface is the silhouette's hull in the box of the keypoints."""

    def logits(self, encoded: Any, points: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 1, points.shape[1]), 9.0)


def mesh_of(field: Any, encoded: Any, levels: int) -> Tuple[Mesh, PhotoSurface]:
    surface = PhotoSurface(field, encoded, levels, 0.5)
    return surface.mesh(), surface


def dense_mesh(surface: PhotoSurface) -> Mesh:
    """The same surface with the network asked at every point of the finest lattice."""
    side, (low, high) = len(surface.volume), surface.box
    axis = torch.arange(side) / (side - 1)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    values = torch.cat([surface.occupancy(low + part * (high - low)) for part in grid.split(65536)])
    return largest_component(mesh_of_occupancy(values.view(side, side, side), surface.box, 0.5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("default"))
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--poses", nargs="+", choices=list(POSES), default=["usual"])
    parser.add_argument("--levels", type=int, default=2)
    parser.add_argument("--dense", type=int, default=2, help="people whose lattice is evaluated whole, too")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    config, field = load_network(arguments.run)
    rows: List[Row] = []
    for pose in arguments.poses:
        people = ProceduralPeople(PeopleOptions(pose_strength=POSES[pose]), TRAIN, arguments.people)
        found: Dict[str, List[PersonScores]] = {"ours": [], "naked body": [], "silhouette hull": []}
        seconds: Dict[str, List[float]] = {"sides": [], "features": [], "surface": []}
        shares, lattices = [], []
        for index in range(TRAIN, TRAIN + arguments.people):
            photo = Photo.of(people.subject(index), 0, config.photo_size, torch.device("cpu"))
            verts, faces = (x.numpy() for x in people.mesh(index))
            sides = clocked(seconds["sides"], partial(field.sides, photo))
            encoded = clocked(seconds["features"], partial(field.encode, photo, sides))
            mesh, surface = clocked(seconds["surface"], partial(mesh_of, field, encoded, arguments.levels))
            asked = surface.evaluated
            shares.append(len(surface.volume) ** 3 / asked)
            hull, _ = mesh_of(Everything(), encoded, arguments.levels)
            body = people.person(index)[0].body.numpy()
            for name, shape in (("ours", (mesh.verts, mesh.faces)), ("naked body", (body, faces)),
                                ("silhouette hull", (hull.verts, hull.faces))):  # fmt: skip
                found[name].append(person_scores(*shape, verts, faces))
            if index < TRAIN + arguments.dense:
                dense = dense_mesh(surface)
                chamfer = person_scores(dense.verts, dense.faces, verts, faces).chamfer_cm
                lattices.append((found["ours"][-1].chamfer_cm, chamfer, asked, surface.evaluated - asked))
            own = found["ours"][-1]
            print(pose, people.name(index), {name: round(v[-1].chamfer_cm, 2) for name, v in found.items()}, flush=True)
            rows.append(Row(f"keypoint-icon/person-{index - TRAIN}", f"chamfer, {pose} pose; baseline: silhouette hull",
                            round(own.chamfer_cm, 2), round(found["silhouette hull"][-1].chamfer_cm, 2), "cm", None,
                            1, None, None))  # fmt: skip
        rows += anchors(found, pose)
        if pose == arguments.poses[0]:
            rows += speed(seconds, shares, COARSE, arguments.levels) + lattice_rows(lattices)
    people = ProceduralPeople(PeopleOptions(), TRAIN, 1)
    write_rows("keypoint_icon_people", [*rows, *query_speed(people)])


def clocked(seconds: List[float], action: Callable[[], Any]) -> Any:
    """What an action returns; how long it took is noted."""
    start = time.perf_counter()
    result = action()
    seconds.append(time.perf_counter() - start)
    return result


def anchors(found: Dict[str, List[PersonScores]], pose: str) -> List[Row]:
    """Means over people beside what needs no network."""
    rows = []
    for name in ("silhouette hull", "naked body"):
        for measure, unit in MEASURES:
            own, other = (np.array([getattr(s, measure) for s in found[n]]) for n in ("ours", name))
            gated = name == "silhouette hull" and measure == "chamfer_cm"
            claim = f"keypoint-icon/{name.replace(' ', '-')}-{measure.partition('_')[0]}"
            text = f"{measure}, mean of {len(own)} unseen people, {pose} poses; baseline: {name}"
            means = (round(float(own.mean()), 3), round(float(other.mean()), 3))
            better = bool(own.mean() < other.mean()) if gated else None
            apart = round(float((own - other).std()), 3)
            rows.append(Row(claim, text, *means, unit, apart, 1, "< baseline" if gated else None, better))
    return rows


def speed(seconds: Dict[str, List[float]], shares: List[float], coarse: int, levels: int) -> List[Row]:
    """Seconds of each stage and of the whole, and points saved."""
    side, share = (coarse - 1) * 2**levels + 1, float(np.mean(shares))
    rows = []
    for name, values in seconds.items():
        text = f"photo in memory to mesh on a {side}^3 lattice: {name}"
        rows.append(
            Row(f"keypoint-icon/speed/{name}", text, round(float(np.median(values)), 3), None, "s", None, 1, None, None)
        )
    whole = float(np.median(np.sum(list(seconds.values()), axis=0)))
    text = f"photo in memory to mesh on a {side}^3 lattice"
    rows.append(Row("keypoint-icon/speed/mesh", text, round(whole, 2), None, "s", None, 1, "< 60 s", whole < 60))
    text = f"points of a {side}^3 lattice per point that the network is asked"
    rows.append(Row("keypoint-icon/speed/lattice", text, round(share, 1), None, "x", None, 1, ">= 8x", share >= 8))
    return rows


def lattice_rows(lattices: List[Tuple[float, float, int, int]]) -> List[Row]:
    """Claim 10: the refined lattice against all of it, both confined to the silhouette."""
    if not lattices:
        return []
    refined, dense, asked, all_asked = (np.array(x, float) for x in zip(*lattices))
    apart = 100 * abs(float(refined.mean()) / float(dense.mean()) - 1)
    text = f"chamfer of {len(lattices)} people differs from that of the whole lattice by, in percent"
    saved = float(all_asked.sum() / asked.sum())
    return [
        Row("keypoint-icon/10", text, round(apart, 3), None, "%", None, 1, "< 1 %", apart < 1),
        Row("keypoint-icon/10", "points of the whole lattice in the silhouette per point of the refined one",
            round(saved, 1), None, "x", None, 1, ">= 3x", saved >= 3),
    ]  # fmt: skip


def query_speed(people: ProceduralPeople) -> List[Row]:
    """Claim 3: seconds for queries of the relative encoding, and of the features of a body by the fastest means at hand
    (Open3D's trees) and by a usual one (trimesh, fewer queries, scaled)."""
    import trimesh

    person, body = people.person(TRAIN)[0], people.body(TRAIN)
    shape = trimesh.Trimesh(person.body.numpy(), person.faces.numpy(), process=False)
    points, few = torch.rand(QUERIES, 3) * 1.6 - 0.8, 500
    camera = torch.eye(3, 4)
    body.features(points[:1], camera)  # builds the tree
    actions = {
        f"keypoints, {octaves}": timed(
            partial(encode_points, points, person.keypoints, camera[None], "rel_z_decay", octaves, 0.2)
        )
        for octaves in OCTAVES
    } | {
        "open3d": timed(lambda: body.features(points, camera)),
        "trimesh": timed(lambda: trimesh.proximity.signed_distance(shape, points[:few].numpy())),
    }
    *own, tree, plain = (float(np.median(x)) for x in interleaved_seconds(actions, 3, 1).values())
    plain *= QUERIES / few
    return [
        Row("keypoint-icon/3", f"{QUERIES:,} encodings, {octaves} frequencies; baseline: ICON's body features ({name})",
            round(seconds, 4), round(other, 4), "s", None, 1, ">= 10x", other / seconds >= 10)
        for octaves, seconds in zip(OCTAVES, own)
        for name, other in (("Open3D", tree), (f"trimesh, from {few} queries", plain))
    ]  # fmt: skip


if __name__ == "__main__":
    main()
