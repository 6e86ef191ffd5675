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

FLAT = 0.01
"""Patches whose standard deviation is below this show nothing."""
HELD_OUT = 0.1
GATE = {
    "usage": 0.8,
    "held_out_usage": 0.6,
    "perplexity_share": 0.4,
    "effective_rank_share": 0.5,
    "gain_over_flat_db": 1.0,
}
"""Least figures of a table that is worth using (method card section 5.3).

Usage and rank say little of the patches' route, which whitens them and gives every code rows of its own; there, codes
that other pictures use and the gain are what tell pictures from noise.
"""


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


def learn_codebook(pictures: Sequence[Float[Tensor, "height width 3"]], options: LearnOptions) -> LearnedCodebook:
    """Learn a table from pictures in [0, 1].

    Returns:
        The table, and how good it is: share of codes in use, perplexity over the number of codes, effective rank over
        the width; and on held-out patches, which come from other pictures where there are enough, the share in use and
        how far the codes lower the squared error below that of plain colours, in dB.

    Raises:
        InputError: The pictures show too little, or the options fit no table.
    """
    generator = torch.Generator().manual_seed(options.seed)
    require_table(options.codes, options.width)
    if options.patch < 2:
        raise InputError(f"Patches of side {options.patch} show nothing: 2 pixels are the least.")
    patches = _draw_patches(pictures, options, generator)
    if len(patches) < 4 * options.codes or options.width > patches.shape[1]:
        raise InputError(
            f"{len(pictures)} pictures gave {len(patches)} patches that show something, too few for {options.codes} "
            f"codes of width {options.width}: give more pictures, or ask for fewer codes (a quarter of the patches at "
            f"most, width at most {patches.shape[1]})."
        )
    held = int(len(patches) * HELD_OUT)
    train, test = patches[held:], patches[:held]
    train = train[torch.randperm(len(train), generator=generator)]

    mean = train.mean(0)
    values, vectors = torch.linalg.eigh((train - mean).T @ (train - mean) / len(train))
    vectors, values = vectors.flip(1)[:, : options.width], values.flip(0)[: options.width]
    # Signs of eigenvectors are arbitrary; fixing them makes the table the same everywhere.
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    whiten = vectors / values.clamp(min=1e-4).sqrt()
    colour = vectors * values.clamp(min=1e-4).sqrt()

    table = _kmeans((train - mean) @ whiten, _distinct_first(train)[: options.codes], options, generator)
    codes = nearest_codes((test - mean) @ whiten, table)
    shown = table[codes] @ colour.T + mean
    gain = float(-10 * torch.log10((test - shown).square().mean() / test.square().mean()))
    used = nearest_codes((train - mean) @ whiten, table)
    return LearnedCodebook(table.float(), usage_report(table, used, codes, gain))


def require_table(codes: int, width: int) -> None:
    """Refuse sizes that are no table.

    Raises:
        InputError: Fewer than two codes, or no column.
    """
    if codes < 2 or width < 1:
        raise InputError(f"{codes} codes of width {width} are no table: 2 codes of width 1 are the least.")


def usage_report(
    table: Float[Tensor, "codes width"], used: Int[Tensor, "n"], held_out: Int[Tensor, "m"], gain: float
) -> Dict[str, float]:
    """What a learned table's header tells.

    Args:
        table: The code vectors.
        used: Codes that the training data falls to.
        held_out: Codes that other data falls to.
        gain: By how much the codes lower the squared error of that data below plain colours, in dB.
    """
    counts, others = (torch.bincount(codes, minlength=len(table)).double() for codes in (used, held_out))
    share = counts / counts.sum()
    perplexity = float(torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum()))
    return {
        "usage": float((counts > 0).double().mean()),
        "held_out_usage": float((others > 0).double().mean()),
        "perplexity_share": perplexity / len(table),
        "effective_rank_share": effective_rank(table) / table.shape[1],
        "gain_over_flat_db": gain,
    }


def below_gate(report: Dict[str, float]) -> List[str]:
    """What a learned table lacks to be worth using, in words; nothing for a good one."""
    return [
        f"{key} is {report[key]:.2f}, and {least:g} at least is wanted"
        for key, least in GATE.items()
        if report[key] < least
    ]


def nearest_codes(features: Float[Tensor, "n width"], table: Float[Tensor, "codes width"]) -> Int[Tensor, "n"]:
    """Index of the closest code for each row."""
    return torch.cat([torch.cdist(part, table).argmin(1) for part in features.split(4096)])


def _draw_patches(
    pictures: Sequence[Float[Tensor, "height width 3"]], options: LearnOptions, generator: torch.Generator
) -> Float[Tensor, "patches values"]:
    """Random patches, flattened, each less its mean colour and divided by its contrast; flat ones are left out.

    Those of one picture follow one another, the pictures in random order. In double precision: a sum in another order
    must not move a patch to another code on another machine.
    """
    per_picture = max(1, options.patches // max(1, len(pictures)))
    found = []
    for index in torch.randperm(len(pictures), generator=generator).tolist():
        picture = pictures[index].double()
        height, width = picture.shape[:2]
        if min(height, width) < options.patch:
            continue
        windows = picture.unfold(0, options.patch, 1).unfold(1, options.patch, 1).flatten(0, 1)
        chosen = torch.randint(len(windows), (per_picture,), generator=generator)
        found.append(windows[chosen].flatten(2))
    patches = torch.cat(found) if found else torch.zeros(0, 3, options.patch**2, dtype=torch.float64)
    patches = patches - patches.mean(dim=2, keepdim=True)
    contrast = patches.flatten(1).square().mean(1).sqrt()
    return patches.flatten(1)[contrast > FLAT] / contrast[contrast > FLAT, None]


def _distinct_first(rows: Float[Tensor, "n values"]) -> Int[Tensor, "n"]:
    """Indices of all rows, those that equal one before them last. Patches are drawn with replacement, and of two equal
    codes the last bit of a distance, which differs between machines, would choose."""
    inverse = torch.unique(rows, dim=0, return_inverse=True)[1]
    every = torch.arange(len(rows))
    first = torch.full((int(inverse.max()) + 1,), len(rows)).scatter_reduce(0, inverse, every, "amin")
    return (first[inverse] != every).to(torch.int8).argsort(stable=True)


def _kmeans(
    features: Float[Tensor, "n width"],
    start: Int[Tensor, "codes"],
    options: LearnOptions,
    generator: torch.Generator,
) -> Float[Tensor, "codes width"]:
    """Lloyd's rounds from some of the rows; a code that loses all its rows starts again at a random one."""
    table = features[start].clone()
    for _ in range(options.iterations):
        codes = nearest_codes(features, table)
        counts = torch.bincount(codes, minlength=options.codes)
        sums = torch.zeros_like(table).index_add_(0, codes, features)
        table = sums / counts.clamp(min=1)[:, None]
        empty = torch.nonzero(counts == 0).flatten()
        table[empty] = features[torch.randint(len(features), (len(empty),), generator=generator)]
    return table
