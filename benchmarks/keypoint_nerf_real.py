"""A real person whom the network has never seen: each camera of a recording held out in turn, the others are sources.

Run from the repository's root, after `ns-ext keypoints photos RECORDING PHOTOS --frames 6`:

    python -m benchmarks.keypoint_nerf_real PHOTOS [--run FOLDER] [--picture real.jpg]

Without a run, the weights that come with the suite are measured. The truth is what the recording's masks cut out, with
whatever of the background they let in.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import torch
from PIL import Image

from benchmarks._harness import Row, write_rows
from benchmarks._people import person_psnr, wanted_camera
from nerfstudio_ext.cli.condition import Condition
from nerfstudio_ext.engine.runs import open_run

GAP = 4
"""Pixels between the pictures of the sheet."""


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--run", type=Path, default=Path("default"))
    parser.add_argument("--picture", type=Path, help="sheet of truth, render and chosen source, a row per camera")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        Condition(arguments.run, arguments.photos, Path(folder) / "run").main()
        pipeline = open_run(Path(folder) / "run")[1]
    dataset: Any = pipeline.datamanager.train_dataset
    model, subject, cameras = pipeline.model.eval(), dataset.store.subject(0), dataset.cameras
    pictures, places = subject.rgb.float() / 255, subject.poses[..., 3]
    scores: Dict[str, List[float]] = {"ours": [], "mean of the sources": [], "nearest source": []}
    overlaps, sheet = [], []
    for held_out in range(len(cameras)):
        sources = [k for k in range(len(cameras)) if k != held_out]
        outputs = model.get_outputs_for_camera(wanted_camera(cameras[held_out : held_out + 1], sources))
        nearest = min(sources, key=lambda k: float((places[k] - places[held_out]).norm()))
        truth, mask = pictures[held_out], subject.mask[held_out]
        found = outputs["rgb"].cpu()
        made = {"ours": found, "mean of the sources": pictures[sources].mean(0), "nearest source": pictures[nearest]}
        for name, picture in made.items():
            scores[name].append(person_psnr(picture, truth, mask[..., None].float()))
        solid = outputs["accumulation"][..., 0].cpu() > 0.5
        overlaps.append(float((solid & mask).sum() / (solid | mask).sum()))
        print(held_out, {name: round(values[-1], 2) for name, values in scores.items()}, round(overlaps[-1], 3))
        sheet.append(torch.cat([_padded(x) for x in (truth, found, outputs["sources"].cpu())], dim=1))
    if arguments.picture is not None:
        pixels = (torch.cat(sheet).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        size = (2 * pixels.shape[1], 2 * pixels.shape[0])
        Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS).save(arguments.picture, quality=88)
    own, setting = (
        scores["ours"],
        f"mean over the {len(cameras)} held-out cameras of one real moment, the others sources",
    )
    rows = [
        Row("keypoint-nerf/real", f"PSNR of the person, {setting}; baseline: {name}", _mean(own), _mean(values), "dB",
            round(float(np.std(np.subtract(own, values))), 2), 1, None, None)
        for name, values in scores.items() if name != "ours"
    ]  # fmt: skip
    rows.append(Row("keypoint-nerf/real", f"mask overlap, {setting}", _mean(overlaps), None, "", None, 1, None, None))
    write_rows("keypoint_nerf_real", rows)


def _mean(values: List[float]) -> float:
    return round(float(np.mean(values)), 2)


def _padded(picture: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(picture, (0, 0, 0, GAP, 0, GAP), value=1.0)


if __name__ == "__main__":
    main()
