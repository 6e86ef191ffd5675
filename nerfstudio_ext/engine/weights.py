"""Small files of trained numbers (.safetensors, half precision), as the suite ships them: readable without pickle."""

import json
import struct
from pathlib import Path
from typing import Dict, Optional, Tuple

import torch
from torch import Tensor

from nerfstudio_ext.engine.checkpoints import write_bytes
from nerfstudio_ext.engine.errors import InputError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def read_safetensors(path: Path) -> Tuple[Dict[str, Tensor], Dict[str, str]]:
    """Float tensors, as float32, and the metadata of a .safetensors file.

    Raises:
        InputError: The file is shorter than its header says, or holds numbers of other kinds only.
    """
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        part = data[8 + length + start : 8 + length + end]
        if len(part) < end - start:
            raise InputError(f"{path} ends in the middle of '{name}': download it again.")
        if entry["dtype"] in _DTYPES:
            kind = _DTYPES[entry["dtype"]]
            values = torch.frombuffer(bytearray(part), dtype=kind) if part else torch.empty(0)
            tensors[name] = values.reshape(entry["shape"]).float()
    if header and not tensors:
        kinds = ", ".join(sorted({entry["dtype"] for entry in header.values()}))
        raise InputError(
            f"{path} holds numbers of the kind {kinds} only, which are not read: convert them to one of "
            f"{', '.join(_DTYPES)}."
        )
    return tensors, metadata


def write_safetensors(tensors: Dict[str, Tensor], path: Path, metadata: Optional[Dict[str, str]] = None) -> None:
    """Write tensors in half precision; the same tensors and metadata give the same bytes. An old file is replaced when
    the new one is whole.

    Raises:
        InputError: The file cannot be written.
    """
    entries, parts, start = {}, [], 0
    for name, tensor in tensors.items():
        values = tensor.detach().cpu().numpy().astype("<f2")
        parts.append(values.tobytes())
        offsets = [start, start + len(parts[-1])]
        entries[name] = {"dtype": "F16", "shape": list(values.shape), "data_offsets": offsets}
        start = offsets[1]
    header = json.dumps({"__metadata__": metadata or {}, **entries}, sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    write_bytes(struct.pack("<Q", len(header)) + header + b"".join(parts), path)
