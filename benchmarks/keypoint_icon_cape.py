"""Scores of a trained network on CAPE as ICON's authors prepare it: each subject, then easy, hard and all.

Run from the repository's root:  python -m benchmarks.keypoint_icon_cape --data cape --run RUN
The first 50 names of the list are the easy poses, as in the published evaluation; all others are hard. CAPE needs a
signed form: this was only tried on synthetic folders in its layout.
"""

import argparse
from pathlib import Path
from typing import Dict, List

import torch

from benchmarks._harness import Row, write_rows
from nerfstudio_ext.cli.reconstruct import load_network
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.fields.photo_surface import PhotoSurface
from nerfstudio_ext.human.icon_layout import IconLayout
from nerfstudio_ext.human.photo import SPAN, Photo
from nerfstudio_ext.human.photo_camera import frame_pictures
from nerfstudio_ext.surface.person_scores import PersonScores, mean_scores, person_scores

EASY = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--source", choices=["cape", "thuman2", "renderpeople"], default="cape")
    parser.add_argument(
        "--names", help="list of names in the folder, such as test.txt; needed where some were trained on"
    )
    parser.add_argument("--run", type=Path, default=Path("default"))
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--easy", type=int, default=EASY)
    arguments = parser.parse_args()
    if arguments.source != "cape" and arguments.names is None:
        parser.error(f"say with --names which people of {arguments.source} to score: others may have been trained on")
    torch.set_grad_enabled(False)
    config, field = load_network(arguments.run)
    layout = IconLayout(arguments.data, arguments.source, arguments.names)
    found: Dict[str, List[PersonScores]] = {"easy": [], "hard": [], "all": []}
    lost = 0
    for index, name in enumerate(layout.names):
        truth = [x.numpy() for x in layout.mesh(index)]
        rows = []
        for yaw in layout.yaws(index):
            view = layout.view(index, yaw)
            framed = frame_pictures(view.rgb[None], view.mask[None], view.camera, config.photo_size, SPAN)
            photo = Photo(*framed, view.keypoints[None])
            try:
                mesh = PhotoSurface.of(field, photo, arguments.levels, config.iso_level).mesh()
            except InputError as error:
                lost += 1
                print(f"{name}/{yaw} is left out of the means: {error}", flush=True)
                continue
            rows.append(person_scores(mesh.verts, mesh.faces, *truth))
        if not rows:
            continue
        kind = "easy" if index < arguments.easy else "hard"
        print(kind, name, {key: round(value, 3) for key, value in mean_scores(rows).items()}, flush=True)
        found[kind] += rows
        found["all"] += rows
    table = [
        Row(f"keypoint-icon/{arguments.source}-{kind}", f"{key}, {len(scores)} pictures", round(value, 3), None, "",
            None, 1, None, None)
        for kind, scores in found.items() if scores
        for key, value in mean_scores(scores).items()
    ]  # fmt: skip
    if lost:
        text = "pictures without any surface, which the means leave out"
        table.append(Row(f"keypoint-icon/{arguments.source}-lost", text, lost, None, "", None, 1, None, None))
    print(write_rows("keypoint_icon_cape", table))


if __name__ == "__main__":
    main()
