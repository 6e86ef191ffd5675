"""Coverage-guided fuzzing of the .bnrv reader: any bytes give codes or an InputError, nothing else.

    python -m tests.fuzz.fuzz_bnrv [folder for new cases] tests/fuzz/corpus -runs=100000 -timeout=10 -rss_limit_mb=4096

Half of the cases are changed inside a part of the file (header text, inflated table, words) and sealed again with right
sizes and checksum, so that they reach what lies behind the checksum.
"""

import inspect
import random
import struct
import sys
import zlib
from typing import Dict, Tuple, Union

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.fields import stored_field
from nerfstudio_ext.fields.stored_field import Description, read_description
from nerfstudio_ext.models import stored_video
from nerfstudio_ext.models.stored_video import read_numbers
from nerfstudio_ext.video.bitstream import coder, container, gaussian, prediction

_described: Dict[Tuple[str, int], Union[Description, str]] = {}


def read(data: bytes) -> int:
    """Everything that reading a file does before the network itself is built; returns the number of codes.

    Raises:
        InputError: The bytes are no video.
    """
    packed = container.unpack(data)
    key = (repr(packed.header), packed.num_bytes)
    if key not in _described:  # drawing the network takes a thousand times as long as all the rest
        if len(_described) > 2000:
            _described.clear()
        try:
            _described[key] = read_description(packed.header, packed.num_bytes)
        except InputError as error:
            _described[key] = str(error)
    description = _described[key]
    if isinstance(description, str):
        raise InputError(description)
    _, tensors, embeddings = read_numbers(packed, description)
    return sum(codes.size for codes in [*tensors, *embeddings])


def one_case(data: bytes) -> None:
    """What the fuzzer calls."""
    try:
        read(data)
    except InputError as error:
        assert str(error)


def sealed(header: bytes, table: bytes, words: bytes) -> bytes:
    """A file of these parts, with right sizes and checksum."""
    header, table, words = zlib.compress(header, 1), zlib.compress(table, 1), words[: len(words) // 4 * 4]
    body = struct.pack("<4sHHIII", b"BNRV", 1, 0, len(header), len(table), len(words) // 4) + header + table + words
    return body + struct.pack("<I", zlib.crc32(body))


def parts_of(data: bytes) -> Tuple[bytes, bytes, bytes]:
    """Header text, inflated table and words of a file that is whole on the outside."""
    _, _, _, header_size, table_size, num_words = struct.unpack_from("<4sHHIII", data)
    table_start = 20 + header_size
    words_start = table_start + table_size
    limit = 2**20
    header = zlib.decompressobj().decompress(data[20:table_start], limit)
    table = zlib.decompressobj().decompress(data[table_start:words_start], limit)
    return header, table, data[words_start : words_start + 4 * num_words]


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change bytes of the file, or of one of its parts and seal it again."""
    import atheris

    chance = random.Random(seed)
    if chance.random() < 0.5:
        try:
            parts = list(parts_of(data))
        except (struct.error, zlib.error):
            return atheris.Mutate(data, max_size)
        which = chance.randrange(3)
        parts[which] = atheris.Mutate(parts[which], max(1, min(max_size, 2 * len(parts[which]) + 8)))
        changed = sealed(*parts)
        if len(changed) <= max_size:
            return changed
    return atheris.Mutate(data, max_size)


def main() -> None:
    """Run the fuzzer with libFuzzer's arguments."""
    import atheris

    for module in (container, coder, gaussian, prediction, stored_field, stored_video):
        for value in vars(module).values():
            if inspect.isfunction(value) and value.__module__ == module.__name__:
                atheris.instrument_func(value)
    atheris.Setup(sys.argv, one_case, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
