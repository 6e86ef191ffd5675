"""What keeping the prototypes, pruning dead codes and looking coarsely first are worth in time and memory: ratios of
one run, turn by turn.

Run from the repository's root:  python -m benchmarks.coco_inr_speed
Training steps have a codebook of the paper's size, 16384 x 256, of which nine in ten codes are dead, as is told of the
paper's. "anew" is how the published code does it: every evaluation of a network works out its prototypes again, from a
copy of the codebook. What the prototypes cost does not depend on the number of rays, and the rest does: fewer rays
flatter the gain. Memory is what autograd keeps for the backward pass, parameters aside; that of meshes is
how much the process grows.
"""

import argparse
import copy
from functools import partial
from typing import List

import numpy as np
import torch
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.types import MethodSpecification

from benchmarks._coco_inr_exact import PAPER_CODES, gradients, paper_table, recompute, step_setup
from benchmarks._harness import Row, interleaved_seconds, kept_megabytes, peak_megabytes, timed, write_rows
from method_configs.coco_inr import coco_inr, coco_inr_tiny
from nerfstudio_ext.codebook.table import prune_dead
from nerfstudio_ext.surface.isosurface import extract_mesh


def step_rows(name: str, method: MethodSpecification, rays: int, repeats: int) -> List[Row]:
    """A training step: prototypes anew in every evaluation, once, and once from living codes alone."""
    table = paper_table()
    once, *batch = step_setup(rays, method, table)
    anew = copy.deepcopy(once)
    recompute(anew)
    pruned = step_setup(rays, method, prune_dead(table))[0]
    models = {"anew": anew, "once": once, "pruned": pruned}
    actions = {key: timed(partial(gradients, model, *batch)) for key, model in models.items()}
    seconds = {key: float(np.median(x)) for key, x in interleaved_seconds(actions, repeats, warm_up=1).items()}
    megabytes = {
        key: kept_megabytes(partial(gradients, model, *batch), model.parameters()) for key, model in models.items()
    }
    claim, at = "coco-inr/speed/prototypes", f"{name}'s widths, {PAPER_CODES:,} codes, {rays} rays"
    gains = {key: seconds["anew"] / seconds[key] for key in ("once", "pruned")}
    return [
        Row(claim, f"training step at {at}: prototypes anew in every evaluation over once", round(gains["once"], 2),
            1.0, "times", None, repeats, ">= 3 times", gains["once"] >= 3),
        Row(claim, f"training step at {at}: prototypes anew over once and dead codes pruned",
            round(gains["pruned"], 2), 1.0, "times", None, repeats, ">= 3 times", gains["pruned"] >= 3),
        Row(claim, f"seconds of a training step at {at}: prototypes once; baseline: anew", round(seconds["once"], 2),
            round(seconds["anew"], 2), "s", None, repeats, None, None),
        Row(claim, f"seconds of a training step at {at}: once and pruned; baseline: anew", round(seconds["pruned"], 2),
            round(seconds["anew"], 2), "s", None, repeats, None, None),
        Row(claim, f"kept for the backward pass at {at}: prototypes once; baseline: anew", round(megabytes["once"]),
            round(megabytes["anew"]), "MB", None, 1, None, None),
        Row(claim, f"kept for the backward pass at {at}: once and pruned; baseline: anew", round(megabytes["pruned"]),
            round(megabytes["anew"]), "MB", None, 1, None, None),
    ]  # fmt: skip


def mesh_rows(resolution: int) -> List[Row]:
    """A mesh by coarse-to-fine evaluation and by dense one, of the sphere that training begins with."""
    scene_box = SceneBox(torch.zeros(2, 3))
    config = coco_inr_tiny.config.pipeline.model
    model = config.setup(scene_box=scene_box, num_train_data=1, metadata={}, device="cpu").eval()
    ways = {
        key: partial(extract_mesh, model.signed_distance, resolution, 1.5, torch.device("cpu"), coarse=coarse)
        for key, coarse in (("coarse", True), ("dense", False))
    }
    memory = {key: peak_megabytes(way) for key, way in ways.items()}
    seconds = interleaved_seconds({key: timed(way) for key, way in ways.items()}, 1, warm_up=0)
    gain = seconds["dense"][0] / seconds["coarse"][0]
    what = f"mesh of the initial sphere at {resolution}^3"
    return [
        Row("coco-inr/speed/mesh", f"{what}, coarse to fine against dense", round(gain, 2), 1.0, "times", None, 1,
            ">= 5 times", gain >= 5),
        Row("coco-inr/speed/mesh", f"memory that the process grows by: {what}, coarse to fine; baseline: dense",
            round(memory["coarse"]), round(memory["dense"]), "MB", None, 1, None, None),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--rays", type=int, default=256, help="of coco-inr-tiny")
    parser.add_argument("--paper-rays", type=int, nargs="+", default=[32, 128], help="of coco-inr, which has 1,024")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = step_rows("coco-inr-tiny", coco_inr_tiny, arguments.rays, arguments.repeats)
    for rays in arguments.paper_rays:
        rows += step_rows("coco-inr", coco_inr, rays, arguments.repeats)
    print(write_rows("coco_inr_speed", rows + mesh_rows(arguments.resolution)))


if __name__ == "__main__":
    main()
