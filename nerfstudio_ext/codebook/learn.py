"""Learning a codebook from pictures: k-means over contrast-normalised, whitened patches.

No network is trained: this is the quick route, minutes on two cores, and the same pictures give the same table.
"""

from dataclasses import dataclass
from typing import Dict, List, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_ext.codebook.table import effective_rank
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.object_scene import ObjectScene, ObjectSceneOptions
from nerfstudio_ext.procedural.objects import OBJECTS

FLAT = 0.01
"""Patches whose standard deviation is below this show nothing."""
HELD_OUT = 0.1


@dataclass
class LearnOptions:
    """Size of the table and how it is learned."""

    codes: int = 1024
    """Code vectors."""
    width: int = 64
    """Numbers in each."""
    patch: int = 8
    """Side of the patches in pixels."""
    patches: int = 40000
    """Patches drawn from all pictures together."""
    iterations: int = 25
    """Rounds of k-means."""
    seed: int = 0
    """Decides which patches are drawn and where k-means starts."""


@dataclass(frozen=True)
class LearnedCodebook:
    """A table, and what it does on patches it has not seen."""

    table: Float[Tensor, "codes width"]
    report: Dict[str, float]


def procedural_pictures(size: int = 96, views: int = 12) -> List[Float[Tensor, "height width 3"]]:
    """Pictures of every procedural object, the backgrounds differing."""
    scenes = [
        ObjectScene(ObjectSceneOptions(name, num_views=views, size=size, seed=100 + k))
        for k, name in enumerate(OBJECTS)
    ]
    return [scene.view(k).rgb for scene in scenes for k in range(views)]


def learn_codebook(pictures: Sequence[Float[Tensor, "height width 3"]], options: LearnOptions) -> LearnedCodebook:
    """Learn a table from pictures in [0, 1].

    Returns:
        The table, and on held-out patches: share of codes in use, perplexity over the number of codes, effective rank
        over the width, and how far the codes lower the squared error below that of plain colours, in dB.

    Raises:
        InputError: The pictures show too little, or the options fit no table.
    """
    generator = torch.Generator().manual_seed(options.seed)
    patches = _draw_patches(pictures, options, generator)
    if len(patches) < 4 * options.codes or options.width > patches.shape[1]:
        raise InputError(
            f"{len(pictures)} pictures gave {len(patches)} patches that show something, too few for {options.codes} "
            f"codes of width {options.width}: give more pictures, or ask for fewer codes (a quarter of the patches at "
            f"most, width at most {patches.shape[1]})."
        )
    held = int(len(patches) * HELD_OUT)
    train, test = patches[held:], patches[:held]

    mean = train.mean(0)
    values, vectors = torch.linalg.eigh(((train - mean).T @ (train - mean) / len(train)).double())
    vectors, values = vectors.flip(1)[:, : options.width], values.flip(0)[: options.width]
    # Signs of eigenvectors are arbitrary; fixing them makes the table the same everywhere.
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    whiten = (vectors / values.clamp(min=1e-4).sqrt()).float()
    colour = (vectors * values.clamp(min=1e-4).sqrt()).float()

    table = _kmeans((train - mean) @ whiten, options, generator)
    codes = nearest_codes((test - mean) @ whiten, table)
    shown = table[codes] @ colour.T + mean
    usage = torch.bincount(codes, minlength=options.codes).float()
    used_by_train = torch.bincount(nearest_codes((train - mean) @ whiten, table), minlength=options.codes).float()
    share = used_by_train / used_by_train.sum()
    perplexity = float(torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum()))
    report = {
        "usage": float((used_by_train > 0).float().mean()),
        "held_out_usage": float((usage > 0).float().mean()),
        "perplexity_share": perplexity / options.codes,
        "effective_rank_share": effective_rank(table) / options.width,
        "gain_over_flat_db": float(-10 * torch.log10((test - shown).square().mean() / test.square().mean())),
    }
    return LearnedCodebook(table, report)


def nearest_codes(features: Float[Tensor, "n width"], table: Float[Tensor, "codes width"]) -> Int[Tensor, "n"]:
    """Index of the closest code for each row."""
    return torch.cat([torch.cdist(part, table).argmin(1) for part in features.split(4096)])


def _draw_patches(
    pictures: Sequence[Float[Tensor, "height width 3"]], options: LearnOptions, generator: torch.Generator
) -> Float[Tensor, "patches values"]:
    """Random patches, flattened, each less its mean colour and divided by its contrast; flat ones are left out."""
    per_picture = max(1, options.patches // max(1, len(pictures)))
    found = []
    for picture in pictures:
        height, width = picture.shape[:2]
        if min(height, width) < options.patch:
            continue
        windows = picture.unfold(0, options.patch, 1).unfold(1, options.patch, 1).flatten(0, 1)
        chosen = torch.randint(len(windows), (per_picture,), generator=generator)
        found.append(windows[chosen].flatten(2))
    patches = torch.cat(found) if found else torch.zeros(0, 3, options.patch**2)
    patches = patches - patches.mean(dim=2, keepdim=True)
    contrast = patches.flatten(1).square().mean(1).sqrt()
    patches = patches.flatten(1)[contrast > FLAT] / contrast[contrast > FLAT, None]
    return patches[torch.randperm(len(patches), generator=generator)]


def _kmeans(
    features: Float[Tensor, "n width"], options: LearnOptions, generator: torch.Generator
) -> Float[Tensor, "codes width"]:
    """Lloyd's rounds; a code that loses all its rows starts again at a random one."""
    table = features[torch.randperm(len(features), generator=generator)[: options.codes]].clone()
    for _ in range(options.iterations):
        codes = nearest_codes(features, table)
        counts = torch.bincount(codes, minlength=options.codes)
        sums = torch.zeros_like(table).index_add_(0, codes, features)
        table = sums / counts.clamp(min=1)[:, None]
        empty = torch.nonzero(counts == 0).flatten()
        table[empty] = features[torch.randint(len(features), (len(empty),), generator=generator)]
    return table
