"""The file as bytes: what was packed comes back, and every fault is told before memory is taken."""

import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video.bitstream.coder import fit
from nerfstudio_ext.video.bitstream.container import MAX_HEADER_BYTES, Table, pack, read_table, unpack
from nerfstudio_ext.video.bitstream.prediction import Prediction

HEADER = {"clip": {"name": "a"}, "width": 7}
CODES = [np.array([1, 2, 3]), np.array([-5, 9]), np.array([0, 0, 1])]
PREDICTION = Prediction(np.array([-300], np.int16), np.array([16], np.uint8))
TABLE = Table(np.array([0.5, 0.25], np.float32), 0.125, -3.0, PREDICTION, fit(CODES))
WORDS = np.array([1, 2**32 - 1, 77], np.uint32)


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def with_parts(header: bytes, table: bytes, words: bytes = b"", version: int = 1) -> bytes:
    start = struct.pack("<4sHHIII", b"BNRV", version, 0, len(header), len(table), len(words) // 4)
    return sealed(start + header + table + words)


def test_what_was_packed_comes_back():
    packed = unpack(pack(HEADER, TABLE, WORDS))
    assert packed.header == HEADER and np.array_equal(packed.words, WORDS)
    table = read_table(packed, 2, 1, 1)
    assert np.array_equal(table.scales, TABLE.scales)
    assert (table.embedding_scale, table.embedding_offset) == (0.125, -3.0)
    for name in ("mean", "std", "low", "high", "zeros"):
        assert np.array_equal(getattr(table.distributions, name), getattr(TABLE.distributions, name))
    assert (table.prediction.centre, table.prediction.share) == (-300, 16)


def test_shares_of_zeros_come_back():
    zeros = np.array([0, 0, 0.75], np.float16)
    table = replace(TABLE, distributions=replace(TABLE.distributions, zeros=zeros))
    assert np.array_equal(read_table(unpack(pack(HEADER, table, WORDS)), 2, 1, 1).distributions.zeros, zeros)


def test_layout_is_as_documented():
    data = pack(HEADER, TABLE, WORDS)
    magic, version, reserved, header_size, table_size, num_words = struct.unpack_from("<4sHHIII", data)
    assert (magic, version, reserved, num_words) == (b"BNRV", 1, 0, 3)
    assert json.loads(zlib.decompress(data[20 : 20 + header_size])) == HEADER
    assert len(zlib.decompress(data[20 + header_size : 20 + header_size + table_size])) == 4 * 2 + 8 + 3 * 1 + 10 * 3
    assert data[-16:-4] == WORDS.astype("<u4").tobytes()
    assert struct.unpack("<I", data[-4:])[0] == zlib.crc32(data[:-4])


def test_every_flipped_bit_and_every_cut_is_told():
    data = pack(HEADER, TABLE, WORDS)
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(InputError):
            unpack(bytes(changed))
    for length in range(len(data)):
        with pytest.raises(InputError):
            unpack(data[:length])
    with pytest.raises(InputError, match="joined"):
        unpack(data + b"\0")


@pytest.mark.parametrize(
    "data, told",
    [
        (b"", "does not start"),
        (b"RIFF" + bytes(40), "does not start"),
        (with_parts(zlib.compress(b"{}"), b"", version=2), "version 2"),
        (with_parts(zlib.compress(bytes(MAX_HEADER_BYTES + 1)), b""), "inflates"),
        (with_parts(zlib.compress(b"{}")[:-3], b""), "inflates|inflated"),
        (with_parts(zlib.compress(b"{}") + b"x", b""), "inflates"),
        (with_parts(b"junk", b""), "inflated"),
        (with_parts(zlib.compress(b"[1]"), b""), "named facts"),
        (with_parts(zlib.compress(b"{"), b""), "readable"),
        (with_parts(zlib.compress(b"\xff\xfe"), b""), "readable"),
        (with_parts(zlib.compress(b'{"a": NaN}'), b""), "readable"),
        (with_parts(zlib.compress(b"[" * 60_000), b""), "readable"),
        (with_parts(zlib.compress(b'{"a": ' + b"9" * 5000 + b"}"), b""), "readable"),
        (struct.pack("<4sHHIII", b"BNRV", 1, 0, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(9), "bytes long"),
    ],
)
def test_faults_are_told(data, told):
    with pytest.raises(InputError, match=told):
        unpack(data)


def test_a_header_that_inflates_to_gigabytes_is_stopped_early():
    bomb = zlib.compressobj(9)
    deflated = b"".join(bomb.compress(bytes(2**20)) for _ in range(64)) + bomb.flush()
    assert len(deflated) < 2**17
    with pytest.raises(InputError, match="inflates"):
        unpack(with_parts(deflated, b""))


@pytest.mark.parametrize(
    "num_tensors, num_frames, num_channels", [(3, 1, 1), (2, 0, 0), (1, 1, 1), (2, 2, 1), (2, 1, 2)]
)
def test_a_table_of_another_network(num_tensors, num_frames, num_channels):
    with pytest.raises(InputError, match="table"):
        read_table(unpack(pack(HEADER, TABLE, WORDS)), num_tensors, num_frames, num_channels)


@pytest.mark.parametrize("scales", [[0.5, 0.0], [0.5, -1.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_impossible_scales(scales):
    table = Table(np.array(scales, np.float32), 0.1, 0.0, PREDICTION, TABLE.distributions)
    with pytest.raises(InputError, match="scale"):
        read_table(unpack(pack(HEADER, table, WORDS)), 2, 1, 1)


def test_impossible_predictions():
    table = replace(TABLE, prediction=replace(PREDICTION, share=np.array([17], np.uint8)))
    with pytest.raises(InputError, match="more than the frame before"):
        read_table(unpack(pack(HEADER, table, WORDS)), 2, 1, 1)
