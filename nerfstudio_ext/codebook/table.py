"""Codebooks on disk and in memory: tables of code vectors, [codes, width] float32.

Reads the code vectors out of the checkpoints of published image tokenizers (taming-transformers, diffusers, flax) and
out of bare tables. Nothing else of those models is used.
"""

import pickle
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.weights import read_safetensors, write_safetensors

DEFAULT_CODEBOOK = Path(__file__).with_name("codebook_default.safetensors")
"""The table that the suite ships: `ns-ext codebook learn` made it from procedural pictures; its header tells how."""
KNOWN_ENDINGS = ("quantize.embedding.weight", "quantize.embed.weight", "quantize.embedding.embedding", "codebook")
TORCH = (".ckpt", ".pt", ".pth", ".bin")
BEGINNINGS = {
    ".npy": (b"\x93NUMPY",),
    ".npz": (b"PK",),
    # A zip archive, or a bare pickle as torch wrote it before.
    **{ending: (b"PK", b"\x80") for ending in TORCH},
}
"""First bytes of files by ending, where the ending says them."""
NARROW = 16
"""Code vectors of fewer numbers say too little to be a prior."""


def load_codebook(path: Path, allow_pickle: bool = False) -> Float[Tensor, "codes width"]:
    """Read a codebook from any of the known formats.

    Args:
        path: `.ckpt`, `.pt`, `.pth`, `.bin` (torch), `.safetensors`, `.msgpack` (flax), `.npy` or `.npz`.
        allow_pickle: Let a torch file run the code it may contain; needed for old Lightning checkpoints.

    Raises:
        InputError: The file is missing, damaged or of an unknown kind, or holds no table of code vectors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"There is no codebook {path}: give a file, or one of the words that --help lists.")
    _require_kind(path)
    try:
        tensors = dict(_read(path, allow_pickle))
    except InputError:
        raise
    except Exception as error:
        # What torch's safe loader raises at a class that it does not know; only torch files may be read otherwise.
        if isinstance(error, pickle.UnpicklingError) and not allow_pickle and path.suffix.lower() in TORCH:
            raise InputError(
                f"{path} holds more than tensors, and reading that would run code from the file: pass --allow-pickle "
                "if you trust where it comes from."
            ) from error
        raise InputError(
            f"{path} cannot be read as a codebook ({type(error).__name__}): it may be damaged or only half downloaded."
        ) from error
    table = _choose(tensors, path).float().contiguous()
    if min(table.shape) < 1 or len(table) < 2 or not torch.isfinite(table).all():
        size = "x".join(map(str, table.shape))
        raise InputError(
            f"The codebook {path} ({size}) has too few rows, or numbers that are not finite: it is no table."
        )
    if bool((table == table[0]).all()):
        raise InputError(f"All rows of the codebook {path} are the same: it may not have been written to its end.")
    return table


def _require_kind(path: Path) -> None:
    """Refuse files that do not begin as their endings promise, as web pages do that were saved in their place.

    Raises:
        InputError: The file is empty or something else.
    """
    with open(path, "rb") as file:
        head = file.read(16)
    if not head:
        raise InputError(f"{path} is empty: download it again.")
    beginnings = BEGINNINGS.get(path.suffix.lower())
    if beginnings is not None and not head.startswith(beginnings):
        raise InputError(
            f"{path} is no {path.suffix} file, since it begins with {head.decode('ascii', 'replace')!r}: it may be "
            "another file of that name, or an error page; download it again."
        )


def _choose(tensors: Dict[str, Tensor], path: Path) -> Tensor:
    tables = {key: value for key, value in tensors.items() if value.ndim == 2 and value.is_floating_point()}
    for ending in KNOWN_ENDINGS:
        found = [key for key in tables if key.endswith(ending)]
        if len(found) == 1:
            return tables[found[0]]
    if len(tables) == 1:
        return next(iter(tables.values()))
    listed = ", ".join(f"{key} {tuple(value.shape)}" for key, value in list(tables.items())[:8]) or "no table at all"
    raise InputError(
        f"{path} holds no tensor named like a codebook ({', '.join(KNOWN_ENDINGS)}), only {listed}: cut the right one "
        "out into a file of its own."
    )


def _read(path: Path, allow_pickle: bool) -> Iterator[Tuple[str, Tensor]]:
    """Every tensor of a file with its dotted name."""
    kind = path.suffix.lower()
    if kind == ".npy":
        yield "codebook", torch.from_numpy(np.load(path, allow_pickle=False))
    elif kind == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            yield from ((key, torch.from_numpy(arrays[key])) for key in arrays.files)
    elif kind == ".safetensors":
        yield from read_safetensors(path)[0].items()
    elif kind == ".msgpack":
        yield from _flatten(_read_flax(path))
    elif kind in TORCH:
        yield from _flatten(torch.load(path, map_location="cpu", weights_only=not allow_pickle))
    else:
        raise InputError(
            f"{path} is of no known kind: a codebook comes as .ckpt, .pt, .pth, .bin, .safetensors, .msgpack, .npy or "
            ".npz."
        )


def _flatten(node: Any, prefix: str = "codebook") -> Iterator[Tuple[str, Tensor]]:
    if isinstance(node, (Tensor, np.ndarray)):
        yield prefix, torch.as_tensor(node)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _flatten(value, str(key) if prefix == "codebook" else f"{prefix}.{key}")


def _read_flax(path: Path) -> Any:
    """Flax's msgpack: arrays are extension type 1, itself a packed (shape, dtype, bytes)."""
    import msgpack

    def array(code: int, data: bytes) -> Any:
        if code != 1:
            return None
        shape, dtype, buffer = msgpack.unpackb(data, raw=False)
        return np.frombuffer(buffer, dtype=np.dtype(dtype)).reshape(shape).copy()

    return msgpack.unpackb(path.read_bytes(), ext_hook=array, raw=False, strict_map_key=False)


def write_codebook(table: Float[Tensor, "codes width"], path: Path, metadata: Optional[Dict[str, str]] = None) -> None:
    """Write a table as half-precision .safetensors; the same table and metadata give the same bytes."""
    write_safetensors({"codebook": table}, path, metadata)


def dead_codes(table: Float[Tensor, "codes width"]) -> Tensor:
    """Which rows training never used: still within the +-1/K that tables are initialised with."""
    return table.abs().amax(dim=1) < 1.05 / len(table)


def prune_dead(table: Float[Tensor, "codes width"]) -> Float[Tensor, "codes width"]:
    """The table without its dead rows, of which one stays as the null that all of them are to attention."""
    dead = dead_codes(table)
    keep = ~dead
    keep[torch.nonzero(dead).flatten()[:1]] = True
    return table[keep]


def randomised(table: Float[Tensor, "codes width"], seed: int) -> Float[Tensor, "codes width"]:
    """Gaussian rows with the mean and covariance of the table's."""
    mean, centred = table.mean(0), table - table.mean(0)
    values, vectors = torch.linalg.eigh((centred.T @ centred / len(table)).double())
    noise = torch.randn(table.shape, generator=torch.Generator().manual_seed(seed)).double()
    return (mean + noise * values.clamp(min=0).sqrt() @ vectors.T).float()


def shuffled(table: Float[Tensor, "codes width"], seed: int) -> Float[Tensor, "codes width"]:
    """The table with each column permuted on its own: the same numbers, no code left."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([column[torch.randperm(len(table), generator=generator)] for column in table.T], dim=1)


def effective_rank(table: Float[Tensor, "codes width"]) -> float:
    """Exponential of the entropy of the normalised singular values; at most the width."""
    values = torch.linalg.svdvals((table - table.mean(0)).double())
    share = values / values.sum()
    return float(torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum()))
