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

MAGIC, VERSIONS = b"BNRV", (1, 2)
"""Version 2 adds a column to the table, the shares of zeros; it is written only where one of them is not 0."""
MAX_HEADER_BYTES = 2**16
"""Most bytes of the header, inflated."""
_START = struct.Struct("<4sHHIII")
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class Packed:
    """The parts of a file, apart but not yet read."""

    version: int
    """Version of the file."""
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
    distributions: Distributions
    """Of the decoder's tensors, then of the frames' embeddings."""


def pack(header: Dict[str, Any], table: Table, words: UInt32[np.ndarray, "words"]) -> bytes:
    """The bytes of a file."""
    deflated_header = zlib.compress(json.dumps(header, sort_keys=True, allow_nan=False).encode(), 9)
    d = table.distributions
    embedding = np.array([table.embedding_scale, table.embedding_offset], "<f4")
    columns = (table.scales.astype("<f4"), embedding, d.mean.astype("<f2"), d.std.astype("<f2"), d.low.astype("<i2"))
    version = 2 if d.zeros.any() else 1
    raw = b"".join(column.tobytes() for column in (*columns, d.high.astype("<i2")))
    raw += d.zeros.astype("<f2").tobytes() if version == 2 else b""
    deflated_table = zlib.compress(raw, 9)
    start = _START.pack(MAGIC, version, 0, len(deflated_header), len(deflated_table), len(words))
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
    if version not in VERSIONS or reserved != 0:
        raise InputError(f"it is of version {version}, and this package reads versions {VERSIONS[0]} to {VERSIONS[-1]}")
    expected = _START.size + header_size + table_size + 4 * num_words + _CRC.size
    if expected != len(data):
        raise InputError(f"it is {len(data)} bytes long instead of {expected}: cut short or joined with something")
    if zlib.crc32(memoryview(data)[: -_CRC.size]) != _CRC.unpack(data[-_CRC.size :])[0]:
        raise InputError("its checksum is wrong: it was damaged on the way")
    table_start = _START.size + header_size
    words_start = table_start + table_size
    header = _read_header(data[_START.size : table_start])
    words = np.frombuffer(data, "<u4", num_words, words_start).astype(np.uint32)
    return Packed(version, header, data[table_start:words_start], words, len(data))


def read_table(packed: Packed, num_tensors: int, num_frames: int) -> Table:
    """The table of a network whose number of tensors is known.

    Args:
        packed: The file.
        num_tensors: Tensors of the decoder.
        num_frames: Frames with embeddings; 0 where frames have none.

    Raises:
        InputError: The table is of another size or holds impossible values.
    """
    segments = num_tensors + num_frames
    kinds = ("<f2", "<f2", "<i2", "<i2", "<f2")[: 4 if packed.version == 1 else 5]
    size = 4 * num_tensors + 8 + 2 * len(kinds) * segments
    raw = _inflate(packed.table, size, "table")
    if len(raw) != size:
        raise InputError(f"its table has {len(raw)} bytes, and its network needs {size}")
    scales = np.frombuffer(raw, "<f4", num_tensors).astype(np.float32)
    embedding = np.frombuffer(raw, "<f4", 2, 4 * num_tensors)
    columns = [
        np.frombuffer(raw, kind, segments, 4 * num_tensors + 8 + 2 * segments * k) for k, kind in enumerate(kinds)
    ]
    if not (np.isfinite(scales).all() and (scales > 0).all() and np.isfinite(embedding).all()):
        raise InputError("a scale in its table is not a positive number")
    mean, std, low, high = (column.astype(column.dtype.newbyteorder("=")) for column in columns[:4])
    zeros = columns[4].astype(np.float16) if packed.version == 2 else np.zeros(segments, np.float16)
    distributions = Distributions(mean, std, low, high, zeros)
    distributions.check()
    return Table(scales, float(embedding[0]), float(embedding[1]), distributions)


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
