"""Does attention help, and does the prior? Six views of procedural objects, one architecture, several codebooks (claims
1 and 2).

Run from the repository's root:  python -m benchmarks.coco_inr_prior
Each run is kept in benchmarks/runs as it ends: a stopped benchmark goes on where it was, and `--rows-only` writes the
rows of the runs that are there. Few steps say little: the rows carry the number of steps in their text.
"""

import argparse
import copy
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import torch

from benchmarks._harness import ROOT, Row, cached, kept, write_rows
from method_configs import coco_inr as presets
from nerfstudio_ext.export.isosurface import extract_mesh
from nerfstudio_ext.procedural.objects import get_object
from nerfstudio_ext.surface.mesh import largest_component
from nerfstudio_ext.surface.metrics import compare_surfaces, sample_mesh

VARIANTS = {
    "default": ("coco_inr_tiny", "default"),
    "none": ("volsdf_tiny", "none"),
    "random": ("coco_inr_tiny", "random"),
    "shuffle": ("coco_inr_tiny", "shuffle"),
    "free": ("coco_inr_tiny", "free"),
}
POINTS = 20000


def run(variant: str, target: str, seed: int, steps: int, size: int) -> Dict[str, Any]:
    """One fit, scored on the held-out views and against the true surface."""
    preset, codebook = VARIANTS[variant]
    config = copy.deepcopy(getattr(presets, preset).config)
    config.vis, config.max_num_iterations = "tensorboard", steps
    config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    config.output_dir, config.timestamp = Path(tempfile.mkdtemp()), "run"
    config.machine.device_type, config.machine.seed = "cpu", seed
    config.pipeline.model.codebook = codebook
    parser = config.pipeline.datamanager.dataparser
    parser.object, parser.size, parser.max_test_views = target, size, 4
    config.set_experiment_name()
    torch.manual_seed(seed)
    np.random.seed(seed)
    trainer = config.setup()
    trainer.setup()
    trainer.train()
    pipeline = trainer.pipeline
    scores = pipeline.get_average_eval_image_metrics(step=steps)
    mesh, _ = extract_mesh(pipeline.model.signed_distance, 96, 1.5, pipeline.device)
    mesh = largest_component(mesh)
    truth = sample_mesh(*get_object(target).mesh(), POINTS)
    surface = compare_surfaces(*sample_mesh(mesh.verts, mesh.faces, POINTS), *truth, threshold=0.05)
    kept_scores = {key: scores[key] for key in ("psnr", "psnr_masked", "mask_iou", "normal_error")}
    return {**kept_scores, **surface.as_dict()}


Runs = Dict[str, Dict[str, Any]]
"""Scores by object and seed."""


GATES = {"psnr_masked": "PSNR on the object no lower", "chamfer": "chamfer distance no larger"}
"""What judges; whole pictures are mostly background."""


def compare(claim: str, what: str, ours: Runs, base: Runs) -> List[Row]:
    """Rows on PSNR, normals and chamfer distance over the runs that both have, paired by object and seed."""
    keys = sorted(ours.keys() & base.keys())
    rows = []
    for measure, unit in (("psnr", "dB"), ("psnr_masked", "dB"), ("normal_error", "degrees"), ("chamfer", "units")):
        values = [np.array([runs[key][measure] for key in keys]) for runs in (ours, base)]
        if not keys:
            continue
        gain = values[0] - values[1]
        better = bool(gain.mean() >= 0) if unit == "dB" else bool(gain.mean() <= 0)
        means = [round(float(x.mean()), 4) for x in values]
        gate, swing = GATES.get(measure), round(float(gain.std(ddof=1)), 4) if len(keys) > 1 else None
        rows.append(Row(claim, f"{measure}: {what}", *means, unit, swing, len(keys), gate, better if gate else None))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", nargs="+", default=["torus-box", "head", "vase"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows-only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    store = ROOT / "benchmarks" / "runs" / f"coco_inr_prior_{arguments.steps}.json"
    runs: Dict[str, Runs] = {variant: {} for variant in VARIANTS}
    for seed in range(arguments.seeds):
        for target in arguments.objects:
            for variant in arguments.variants:
                key = f"{variant}/{target}/{seed}"
                if arguments.rows_only and key not in kept(store):
                    continue
                result = cached(store, key, partial(run, variant, target, seed, arguments.steps, arguments.size))
                runs[variant][f"{target}/{seed}"] = result
                print(key, {name: round(value, 3) for name, value in result.items()}, flush=True)
    setting = f"{', '.join(arguments.objects)}, 6 views, {arguments.steps} steps"
    rows = compare("coco-inr/1", f"default codebook against no attention, {setting}", runs["default"], runs["none"])
    for other in ("random", "shuffle", "free"):
        rows += compare("coco-inr/2", f"default codebook against {other}, {setting}", runs["default"], runs[other])
    print(write_rows("coco_inr_prior", rows))


if __name__ == "__main__":
    main()
