"""The .bnrv file as bytes: header, table of distributions, code words, checksum (docs/formats/bnrv.md).

Nothing here trusts a file: sizes are held against the file's own length and against the stated limits before memory is
taken. Messages of faults are ends of the sentence "FILE is no readable video: ...".
"""

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Dict

import numpy as np
from jaxtyping import Float, UInt32

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video.bitstream.coder import Distributions
from nerfstudio_ext.video.bitstream.prediction import Prediction

MAGIC, VERSION = b"BNRV", 1
MAX_HEADER_BYTES = 2**16
"""Most bytes of the header, inflated."""
_START = struct.Struct("<4sHHIII")
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class Packed:
    """The parts of a file, apart but not yet read."""

    header: Dict[str, Any]
    """The JSON header."""
    table: bytes
    """Deflated table."""
    words: UInt32[np.ndarray, "words"]
    """Code words."""
    num_bytes: int
    """Size of the whole file."""


@dataclass(frozen=True)
class Table:
    """What the numbers of the network are read with."""

    scales: Float[np.ndarray, "tensors"]
    """Step between codes of each decoder tensor, float32."""
    embedding_scale: float
    """Step between codes of the embeddings."""
    embedding_offset: float
    """Value of the embeddings' code 0."""
    prediction: Prediction
    """What is expected of the embeddings' channels; none where frames have no embeddings."""
    distributions: Distributions
    """Of the decoder's tensors, then of the differences between frames' embeddings."""


def pack(header: Dict[str, Any], table: Table, words: UInt32[np.ndarray, "words"]) -> bytes:
    """The bytes of a file."""
    deflated_header = zlib.compress(json.dumps(header, sort_keys=True, allow_nan=False).encode(), 9)
    d, p = table.distributions, table.prediction
    embedding = np.array([table.embedding_scale, table.embedding_offset])
    columns = (table.scales, embedding, p.centre, p.share, d.mean, d.std, d.low, d.high, d.zeros)
    kinds = ("<f4", "<f4", "<i2", "u1", "<f2", "<f2", "<i2", "<i2", "<f2")
    raw = b"".join(column.astype(kind).tobytes() for column, kind in zip(columns, kinds, strict=True))
    deflated_table = zlib.compress(raw, 9)
    start = _START.pack(MAGIC, VERSION, 0, len(deflated_header), len(deflated_table), len(words))
    body = start + deflated_header + deflated_table + words.astype("<u4").tobytes()
    return body + _CRC.pack(zlib.crc32(body))


def unpack(data: bytes) -> Packed:
    """Take a file apart and read its header.

    Raises:
        InputError: The file is of another kind or version, cut, changed, or its header cannot be read.
    """
    if len(data) < _START.size + _CRC.size or data[:4] != MAGIC:
        raise InputError("it does not start as a .bnrv file does")
    _, version, reserved, header_size, table_size, num_words = _START.unpack_from(data)
    if version != VERSION or reserved != 0:
        raise InputError(f"it is of version {version}, and this package reads version {VERSION}")
    expected = _START.size + header_size + table_size + 4 * num_words + _CRC.size
    if expected != len(data):
        raise InputError(f"it is {len(data)} bytes long instead of {expected}: cut short or joined with something")
    if zlib.crc32(memoryview(data)[: -_CRC.size]) != _CRC.unpack(data[-_CRC.size :])[0]:
        raise InputError("its checksum is wrong: it was damaged on the way")
    table_start = _START.size + header_size
    words_start = table_start + table_size
    header = _read_header(data[_START.size : table_start])
    words = np.frombuffer(data, "<u4", num_words, words_start).astype(np.uint32)
    return Packed(header, data[table_start:words_start], words, len(data))


def read_table(packed: Packed, num_tensors: int, num_frames: int, num_channels: int) -> Table:
    """The table of a network whose number of tensors is known.

    Args:
        packed: The file.
        num_tensors: Tensors of the decoder.
        num_frames: Frames with embeddings; 0 where frames have none.
        num_channels: Channels of the embeddings; 0 likewise.

    Raises:
        InputError: The table is of another size or holds impossible values.
    """
    segments = num_tensors + num_frames
    kinds = {"scales": ("<f4", num_tensors), "embedding": ("<f4", 2), "centre": ("<i2", num_channels),
             "share": ("u1", num_channels), "mean": ("<f2", segments), "std": ("<f2", segments),
             "low": ("<i2", segments), "high": ("<i2", segments), "zeros": ("<f2", segments)}  # fmt: skip
    layout = np.dtype([(name, kind, (length,)) for name, (kind, length) in kinds.items()])
    raw = _inflate(packed.table, layout.itemsize, "table")
    if len(raw) != layout.itemsize:
        raise InputError(f"its table has {len(raw)} bytes, and its network needs {layout.itemsize}")
    record = np.frombuffer(raw, layout)[0]
    columns = {name: np.array(record[name], np.dtype(kind).newbyteorder("=")) for name, (kind, _) in kinds.items()}
    scales, embedding = columns.pop("scales"), columns.pop("embedding")
    if not (np.isfinite(scales).all() and (scales > 0).all() and np.isfinite(embedding).all()):
        raise InputError("a scale in its table is not a positive number")
    prediction = Prediction(columns.pop("centre"), columns.pop("share"))
    prediction.check()
    distributions = Distributions(**columns)
    distributions.check()
    return Table(scales, float(embedding[0]), float(embedding[1]), prediction, distributions)


def _read_header(deflated: bytes) -> Dict[str, Any]:
    raw = _inflate(deflated, MAX_HEADER_BYTES, "header")
    try:
        header = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InputError("its header is not readable text") from None
    if not isinstance(header, dict):
        raise InputError("its header is not a list of named facts")
    return header


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _inflate(deflated: bytes, most: int, what: str) -> bytes:
    """Inflate to a stated number of bytes at most, whatever the data claims."""
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(deflated, most + 1)
    except zlib.error:
        raise InputError(f"its {what} cannot be inflated") from None
    if len(raw) > most or not inflater.eof or inflater.unused_data:
        raise InputError(f"its {what} inflates to more than {most} bytes or not to its end")
    return raw
