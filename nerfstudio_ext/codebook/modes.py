"""What stands behind the prototypes: a codebook, one of its null hypotheses, or nothing."""

import hashlib
from pathlib import Path
from typing import List, Optional, Protocol, Tuple

import torch
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nerfstudio_ext.codebook.learn import LearnOptions, below_gate, learn_codebook
from nerfstudio_ext.codebook.table import (
    DEFAULT_CODEBOOK,
    NARROW,
    dead_codes,
    load_codebook,
    prune_dead,
    randomised,
    shuffled,
)
from nerfstudio_ext.engine.errors import InputError

NULLS = {"random": randomised, "shuffle": shuffled}
"""Tables of the same statistics, without codes."""


class Pictures(Protocol):
    """Training views, read when a codebook is learned from them."""

    def training_pictures(self) -> List[Float[Tensor, "height width 3"]]: ...


def codebook_for(
    mode: str, prune: bool, allow_pickle: bool, pictures: Optional[Pictures], stored: bool = False, seed: int = 0
) -> Tuple[Optional[Float[Tensor, "codes width"]], bool]:
    """Table of a mode (none: the prototypes are parameters), and whether points read prototypes at all.

    Args:
        mode: default, a file, scene, random, shuffle, free or none; random:FILE and shuffle:FILE take another table
            than the default.
        prune: Drop dead codes.
        allow_pickle: As `load_codebook`.
        pictures: The training views, for the mode scene.
        stored: The table comes with a checkpoint: neither file nor pictures are needed, and an empty one is returned.
        seed: Which random or shuffled table is drawn.

    Raises:
        InputError: The mode is neither a known word nor a readable file.
    """
    if mode in ("free", "none"):
        return None, mode == "free"
    if stored:
        return torch.empty(0, 1), True
    if mode == "scene":
        if pictures is None:
            raise InputError("--pipeline.model.codebook scene needs training pictures, and this data has none.")
        learned = learn_codebook(pictures.training_pictures(), LearnOptions(codes=256))
        for fault in below_gate(learned.report):
            CONSOLE.print(f"The codebook of this scene is a poor one: {fault}.", style="yellow")
        table = learned.table
    else:
        word, _, file = mode.partition(":")
        if word not in NULLS:
            word, file = "", mode
        table = load_codebook(DEFAULT_CODEBOOK if file in ("", "default") else Path(file), allow_pickle)
        table = NULLS[word](table, seed) if word else table
    dead = int(dead_codes(table).sum())
    if prune and dead:
        table = prune_dead(table)
    if len(table) < table.shape[1]:
        size = f"{len(table)}x{table.shape[1]}"
        CONSOLE.print(f"The codebook has fewer rows than columns ({size}): it may be transposed.", style="yellow")
    if table.shape[1] < NARROW:
        CONSOLE.print(f"The codebook's vectors have only {table.shape[1]} numbers: hardly a prior.", style="yellow")
    norms = table.norm(dim=1).quantile(table.new_tensor([0.0, 0.5, 1.0])).tolist()
    digest = hashlib.sha256(table.numpy().tobytes()).hexdigest()[:12]
    CONSOLE.print(
        f"Codebook '{mode}': {table.shape[0]} codes of width {table.shape[1]}, {dead} dead, norms "
        f"{norms[0]:.2g} to {norms[2]:.2g} (median {norms[1]:.2g}), sha256 {digest}"
    )
    return table, True
