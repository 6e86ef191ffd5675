"""Trainings that `coco_inr_prior` and `coco_inr_claims` compare: coco-inr-tiny or volsdf-tiny with something changed.

A run is trained once, kept in benchmarks/runs and shared by both. All runs on a procedural object are scored on the
same held-out views, however many views they train on.
"""

import argparse
import copy
import hashlib
import json
import random
import tempfile
import time
from dataclasses import dataclass, field, is_dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Type

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from benchmarks._coco_inr_scores import (
    CELLS,
    HALF_SIDE,
    HELD_OUT,
    MOST_VIEWS,
    POINTS,
    held_out,
    scores_of,
)
from benchmarks._harness import ROOT, cached, kept, usable
from dataparsers._common import pictures_in
from dataparsers.idr import IdrDataParserConfig
from method_configs import coco_inr as presets
from nerfstudio_ext.codebook.autoencoder import AutoencoderOptions, learn_by_autoencoder
from nerfstudio_ext.codebook.table import DEFAULT_CODEBOOK, load_codebook, write_codebook
from nerfstudio_ext.models.coco_inr import CoCoINRModel
from nerfstudio_ext.procedural.object_scene import ObjectSceneOptions
from nerfstudio_ext.procedural.pictures import procedural_pictures

STORE = ROOT / "benchmarks" / "runs" / "coco_inr_fits.json"
HEAD_MASK_LOSS = 0.1
"""Weight of the mask loss on photos, whose background is not learned from so few."""
DEAD, DEAD_SHARE, DEAD_SIZE = "nine tenths dead", 0.9, 1e-5
"""Name of a table of which training never used this share of the codes, which are this large."""
TOKENIZER, TOKENIZER_FILE = "the tokenizer's", STORE.with_name("coco_inr_tokenizer.safetensors")
"""Name of the table that an autoencoder learns from the pictures that the default one is learned from, and where it is
kept: another machine's sums would give another table."""
MATCHED_WIDTH = 316
"""Width at which volsdf-tiny has as many trained numbers as coco-inr-tiny."""
SAME_TIME_WIDTH = 160
"""Width at which a step of volsdf-tiny takes as long as one of coco-inr-tiny, by `_coco_inr_exact.width_times`."""


class OfficialEikonal(CoCoINRModel):
    """Near-surface points of the eikonal loss start at a ray's direction, as in the published code."""

    def _regularised_gradients(self, origins: Tensor, directions: Tensor, *others: Any) -> Dict[str, Tensor]:
        return super()._regularised_gradients(directions, directions, *others)


@dataclass(frozen=True)
class Variant:
    """What a training changes."""

    preset: str = "coco_inr_tiny"
    """Name in method_configs.coco_inr."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Values by dotted field of the model's config."""
    model: Optional[Type[CoCoINRModel]] = None
    """In the place of the preset's."""
    rate: Optional[float] = None
    """Learning rate in the place of the preset's; it falls to a tenth, as there."""


VARIANTS: Dict[str, Variant] = {
    "default": Variant(),
    "none": Variant("volsdf_tiny"),
    "none-same-rate": Variant("volsdf_tiny", rate=1e-3),
    "none-matched": Variant("volsdf_tiny", {"field.width": MATCHED_WIDTH}),
    "none-same-time": Variant("volsdf_tiny", {"field.width": SAME_TIME_WIDTH}),
    "random": Variant(changes={"codebook": "random"}),
    "shuffle": Variant(changes={"codebook": "shuffle"}),
    "free": Variant(changes={"codebook": "free"}),
    "tokenizer": Variant(changes={"codebook": TOKENIZER}),
    "prototypes-8": Variant(changes={"field.num_prototypes": 8}),
    "prototypes-256": Variant(changes={"field.num_prototypes": 256}),
    "depth-0": Variant(changes={"field.depth": 0}),
    "no-eikonal": Variant(changes={"eikonal_loss_mult": 0.0}),
    "official-eikonal": Variant(model=OfficialEikonal),
    "dead-codes": Variant(changes={"codebook": DEAD}),
    "dead-codes-pruned": Variant(changes={"codebook": DEAD, "codebook_prune": True}),
}


@dataclass(frozen=True)
class Fit:
    """One training: everything that its result depends on beside the code."""

    variant: str
    target: str
    """A procedural object, or with `data` the name of a folder in IDR layout."""
    views: int
    seed: int
    steps: int
    size: int = 64
    """Width of the pictures in pixels."""
    rays: int = 256
    """Rays in each step."""
    data: Optional[Path] = None

    @property
    def key(self) -> str:
        setting = f"{self.steps} steps/{self.size} pixels/{self.rays} rays"
        return f"{self.variant}/{self.target}/{self.views} views/seed {self.seed}/{setting}"


def config_of(fit: Fit) -> Any:
    """The preset's configuration with the fit's changes."""
    variant = VARIANTS[fit.variant]
    config = copy.deepcopy(getattr(presets, variant.preset).config)
    config.vis, config.max_num_iterations = "tensorboard", fit.steps
    config.machine.device_type, config.machine.seed = "cpu", fit.seed
    model, manager = config.pipeline.model, config.pipeline.datamanager
    for name, value in variant.changes.items():
        *path, last = name.split(".")
        owner = reduce(getattr, path, model)
        assert hasattr(owner, last), f"the model's config has no {name}"
        setattr(owner, last, value)
    if variant.changes.get("codebook") in ("random", "shuffle"):
        model.codebook_seed = fit.seed  # one draw of a table is no sample of what such tables do
    if variant.model is not None:
        model._target = variant.model
    if variant.rate is not None:
        config.optimizers["field"]["optimizer"].lr = variant.rate
    manager.train_num_rays_per_batch = manager.eval_num_rays_per_batch = fit.rays
    if fit.data is None:
        # Drawn cameras stand as they should, and scores against the drawn surface need them to stay.
        manager.normalise = "file"
        parser = manager.dataparser
        parser.object, parser.size, parser.num_views = fit.target, fit.size, fit.views
        if fit.views > MOST_VIEWS:
            parser.num_views, parser.train_views = None, ",".join(map(str, more_views(fit)))
    else:
        manager.dataparser = IdrDataParserConfig(data=fit.data, num_views=fit.views)
        model.mask_loss_mult = HEAD_MASK_LOSS
    return config


def more_views(fit: Fit) -> List[int]:
    """So many views that the nested choice would train on some that score; evenly chosen among the others."""
    scored = held_out(fit.target, fit.size).input_dataset.metadata["view_indices"]
    free = [k for k in range(ObjectSceneOptions().num_views) if k not in scored]
    return [free[k] for k in np.linspace(0, len(free) - 1, fit.views).round().astype(int)]


def settings_of(fit: Fit) -> Dict[str, Any]:
    """What decides a fit's result beside its key, as JSON holds it: a kept run of other settings is old.

    Not the shipped codebook, which each run notes instead: it was learned anew once, with the same recipe and quality.
    """
    config = config_of(fit)
    optimizer = config.optimizers["field"]
    settings = {
        **_flat(config.pipeline.model),
        "model": config.pipeline.model._target.__name__,
        "lr": optimizer["optimizer"].lr,
        "lr_final": optimizer["scheduler"].final,
        "held_out": [MOST_VIEWS, HELD_OUT] if fit.data is None else "all",
        "mesh": [CELLS, HALF_SIDE, POINTS],
    }
    return json.loads(json.dumps(settings))


def _flat(config: Any, prefix: str = "") -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for name, value in vars(config).items():
        if is_dataclass(value):
            found |= _flat(value, f"{prefix}{name}.")
        elif name != "_target":
            found[prefix + name] = value
    return found


def table_with_dead_codes() -> Float[Tensor, "codes width"]:
    """The default codebook among codes that its training is said never to have used."""
    alive = load_codebook(DEFAULT_CODEBOOK)
    count = round(len(alive) * DEAD_SHARE / (1 - DEAD_SHARE))
    noise = torch.rand(count, alive.shape[1], generator=torch.Generator().manual_seed(0))
    return torch.cat([alive, (2 * noise - 1) * DEAD_SIZE])


def run(fit: Fit) -> Dict[str, Any]:
    """One training and its scores.

    Returns:
        Means over the held-out views; distances to the drawn surface, None where there is no mesh; how the samplers
        err (`sampling_errors`) and the gradient's length (`slopes`); ``parameters`` that were trained;
        ``step_seconds`` and ``minutes`` (training and scores) of the processor.
    """
    from nerfstudio.utils import writer  # cannot be the first of the host's modules

    start = time.process_time()
    config = config_of(fit)
    with tempfile.TemporaryDirectory() as folder:
        config.output_dir, config.timestamp = Path(folder), "run"
        config.set_experiment_name()
        if config.pipeline.model.codebook == DEAD:
            config.pipeline.model.codebook = str(Path(folder) / "codebook.safetensors")
            write_codebook(table_with_dead_codes(), Path(config.pipeline.model.codebook))
        if config.pipeline.model.codebook == TOKENIZER:
            if not TOKENIZER_FILE.is_file():
                learned = learn_by_autoencoder(procedural_pictures(), AutoencoderOptions())
                write_codebook(learned.table, TOKENIZER_FILE, {key: f"{x:.4f}" for key, x in learned.report.items()})
            config.pipeline.model.codebook = str(TOKENIZER_FILE)
        if fit.data is not None:
            width = Image.open(pictures_in(fit.data / "image", "IDR")[0]).width
            config.pipeline.datamanager.camera_res_scale_factor = (fit.size + 0.01) / width
        random.seed(fit.seed)
        np.random.seed(fit.seed)
        torch.manual_seed(fit.seed)
        trainer = config.setup()
        trainer.setup()
        begin = time.process_time()
        for step in range(fit.steps):
            trainer.pipeline.train()
            trainer.train_iteration(step)
        seconds = time.process_time() - begin
        scores = scores_of(trainer.pipeline, fit.target if fit.data is None else None, fit.size)
    writer.EVENT_WRITERS.clear()  # the host keeps them for the process, and their folder is gone
    trained = sum(p.numel() for p in trainer.pipeline.model.field.parameters() if p.requires_grad)
    return {
        **scores,
        "parameters": trained,
        "codebook_sha256": hashlib.sha256(DEFAULT_CODEBOOK.read_bytes()).hexdigest()[:12],
        "step_seconds": round(seconds / fit.steps, 4),
        "minutes": round((time.process_time() - start) / 60, 2),
    }


def collect(fits: Iterable[Fit], rows_only: bool) -> Dict[Fit, Dict[str, Any]]:
    """Results of fits, trained where none is kept; with `rows_only` those that are kept."""
    found = {}
    for fit in dict.fromkeys(fits):
        settings = settings_of(fit)
        if rows_only and not usable(kept(STORE).get(fit.key), settings):
            continue
        found[fit] = cached(STORE, fit.key, partial(run, fit), settings)
        if not rows_only:
            shown = ("psnr_masked", "normal_error", "chamfer", "slope_near", "step_seconds", "minutes")
            print(fit.key, {name: found[fit].get(name) for name in shown}, flush=True)
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """What both benchmarks let the caller choose."""
    parser.add_argument("--objects", nargs="+", default=["torus-box", "head", "vase"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rays", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows-only", action="store_true")
