"""What of CoCo-INR is exact or a matter of time, and needs no training: prototypes once a step, baking, pruning, and
how wide a network without attention costs as much."""

import copy
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.types import MethodSpecification
from torch import Tensor

from benchmarks._coco_inr_fits import DEAD_SHARE, DEAD_SIZE, MATCHED_WIDTH, SAME_TIME_WIDTH, table_with_dead_codes
from benchmarks._harness import interleaved_seconds, timed
from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from method_configs.coco_inr import coco_inr, coco_inr_tiny, volsdf_tiny
from nerfstudio_ext.codebook.attention import CodebookAttention
from nerfstudio_ext.codebook.table import prune_dead
from nerfstudio_ext.fields.coco_inr_field import CoCoINRFieldConfig
from nerfstudio_ext.models.coco_inr import CoCoINRModel

PAPER_CODES, PAPER_WIDTH = 16384, 256
READS = {"sdf_and_feature": ("sdf",), "colour": ("colour",), "background": ("background_density", "background_colour")}
"""Prototypes that each evaluation of the field reads."""


def step_setup(
    rays: int,
    method: MethodSpecification = coco_inr_tiny,
    table: Optional[Float[Tensor, "codes width"]] = None,
    width: Optional[int] = None,
) -> Tuple[CoCoINRModel, RayBundle, Dict[str, Tensor]]:
    """A preset off its start, so that every network heeds its prototypes, and a batch of a drawn view.

    Args:
        rays: How many, at most 1,024.
        method: Whose widths and sample counts.
        table: Codebook in the place of the shipped one.
        width: Of the hidden layers, in the place of the preset's.
    """
    torch.manual_seed(0)
    config = copy.deepcopy(method.config.pipeline.model)
    config.field.width = width or config.field.width
    model = config.setup(scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=1, metadata={}, device="cpu").train()
    if table is not None:
        model.field.codebook = table
        for name in list(model.field.prototypes):
            model.field.prototypes[name] = attention_of(config.field, table.shape[1])
    with torch.no_grad():
        for parameter in model.field.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    outputs = ProceduralObjectDataParserConfig(size=32).setup().get_dataparser_outputs("train")
    bundle = outputs.cameras.generate_rays(camera_indices=0).flatten()[torch.randperm(32 * 32)[:rays]]
    return model, bundle, {"image": torch.rand(rays, 3)}


def recompute(model: CoCoINRModel) -> None:
    """As the published code: every evaluation works out its prototypes anew, each network from its own copy of the
    codebook."""
    field = model.field
    for name, networks in READS.items():
        evaluate = getattr(field, name)
        tables = {network: field.codebook.clone() for network in networks}

        def anew(*inputs: Any, evaluate: Any = evaluate, tables: Dict[str, Tensor] = tables) -> Any:
            *rest, context = inputs
            fresh = {n: field.readers[n].keys_values(field.prototypes[n](table)) for n, table in tables.items()}
            return evaluate(*rest, {**context, **fresh})

        setattr(field, name, anew)


def gradients(model: CoCoINRModel, bundle: RayBundle, batch: Dict[str, Tensor]) -> List[Tensor]:
    """The losses of one training step and their gradients, with the same draws every time."""
    torch.manual_seed(1)
    losses = model.get_loss_dict(model.get_outputs(bundle), batch)
    parameters = model.get_param_groups()["field"]
    return [*losses.values(), *torch.autograd.grad(sum(losses.values()), parameters)]


def apart(ours: List[Tensor], others: List[Tensor]) -> float:
    """Largest difference, relative to the largest number of each tensor."""
    pairs = zip(ours, others, strict=True)
    return max(float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-30)) for a, b in pairs)


def exactness(rays: int = 64) -> Dict[str, Any]:
    """Claim 8 in double precision: `once` a step against anew from copies, and `baked` against not; largest relative
    differences."""
    model, bundle, batch = step_setup(rays)
    model.double()
    bundle.origins, bundle.directions = bundle.origins.double(), bundle.directions.double()
    batch = {name: value.double() for name, value in batch.items()}
    torch.set_default_dtype(torch.float64)
    try:
        once = gradients(model, bundle, batch)
        slow = copy.deepcopy(model)
        recompute(slow)
        often = gradients(slow, bundle, batch)
        model.eval()
        with torch.no_grad():
            plain = list(model.get_outputs(bundle).values())
            model.field.bake()
            baked = list(model.get_outputs(bundle).values())
    finally:
        torch.set_default_dtype(torch.float32)
    return {"once": apart(once, often), "baked": apart(baked, plain)}


def step_times(repeats: int, rays: int = 256) -> Dict[str, Any]:
    """Median seconds of a training step of coco-inr-tiny with the shipped codebook, prototypes once and anew."""
    model, bundle, batch = step_setup(rays)
    slow = copy.deepcopy(model)
    recompute(slow)
    actions = {
        "once": timed(lambda: gradients(model, bundle, batch)),
        "anew": timed(lambda: gradients(slow, bundle, batch)),
    }
    return {name: float(np.median(times)) for name, times in interleaved_seconds(actions, repeats, 1).items()}


def width_times(repeats: int, rays: int = 128) -> Dict[str, Any]:
    """Median seconds of a training step of coco-inr-tiny, and of volsdf-tiny as it is and widened twice."""
    setups = {"coco-inr-tiny": step_setup(rays)}
    for width in (volsdf_tiny.config.pipeline.model.field.width, SAME_TIME_WIDTH, MATCHED_WIDTH):
        setups[f"volsdf-tiny {width}"] = step_setup(rays, volsdf_tiny, width=width)
    actions = {name: timed(lambda setup=setup: gradients(*setup)) for name, setup in setups.items()}
    return {name: float(np.median(times)) for name, times in interleaved_seconds(actions, repeats, 1).items()}


def attention_times(repeats: int) -> Dict[str, Any]:
    """Median seconds of one codebook attention, forward and back, with all codes and without nine tenths dead ones: at
    coco-inr-tiny's widths, and at the paper's with a table of the paper's size."""
    paper = paper_table()
    cases = {
        "tiny": (coco_inr_tiny.config.pipeline.model.field, table_with_dead_codes()),
        "paper": (coco_inr.config.pipeline.model.field, paper),
    }
    actions = {}
    for name, (config, table) in cases.items():
        module = attention_of(config, table.shape[1])
        for kind, codes in (("all", table), ("pruned", prune_dead(table))):
            actions[f"{name} {kind}"] = timed(lambda module=module, codes=codes: module(codes).sum().backward())
    times = interleaved_seconds(actions, repeats, 1)
    return {
        **{name: float(np.median(values)) for name, values in times.items()},
        **{f"{name} codes": [len(table), len(prune_dead(table))] for name, (_, table) in cases.items()},
    }


def paper_table() -> Float[Tensor, "codes width"]:
    """A table of the paper's size, of which nine in ten codes are dead."""
    table = torch.randn(PAPER_CODES, PAPER_WIDTH, generator=torch.Generator().manual_seed(0))
    table[round((1 - DEAD_SHARE) * PAPER_CODES) :] *= DEAD_SIZE / 4
    return table


def attention_of(config: CoCoINRFieldConfig, width: int) -> CodebookAttention:
    """The codebook attention of one of a field's networks."""
    c = config
    return CodebookAttention(width, c.num_prototypes, c.prototype_width, c.heads, c.head_width, c.depth)
