"""Videos as .bnrv files: written from each kind of model, read without it, and safe against any other bytes."""

import copy
import json
import re
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import nerfstudio_ext.video
from dataparsers.video_frames import VideoDataParserConfig
from nerfstudio_ext.data.video import VideoDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.fields.stored_field import MAX_TIME_CODES
from nerfstudio_ext.models.stored_video import StoredVideo, encode_model
from nerfstudio_ext.video.quantization import CompressionConfig
from nerfstudio_ext.video.time_encoding import frame_times, positional_encoding
from tests.conftest import REPOSITORY
from tests.models.test_boosting_nerv import HEIGHT, HYBRID, NUM_FRAMES, WIDTH, small_model, train
from tests.reference.plain_nerv import KINDS

pytestmark = pytest.mark.extra("constriction")


@pytest.fixture(scope="module")
def dataset():
    parser = VideoDataParserConfig(procedural_frames=12 * NUM_FRAMES, frame_step=12, procedural_size=(WIDTH, HEIGHT))
    return VideoDataset(parser.setup().get_dataparser_outputs("train"))


@pytest.fixture(scope="module")
def model_of(dataset):
    """`model_of(kind, compressed)`: a model that has been trained a little, once per module."""
    known = {}

    def get(kind, compressed):
        if (kind, compressed) not in known:
            model = small_model(kind, dataset)
            train(model, dataset, 3, kind=kind)
            if compressed:
                second = small_model(kind, dataset, compression=CompressionConfig())
                model.prepare_checkpoint()
                second.start_compression(model.state_dict())
                model = second.eval()
            model.prepare_eval()
            known[kind, compressed] = model
        return known[kind, compressed]

    return get


@pytest.fixture(scope="module")
def data(model_of):
    """A small file of the hybrid kind."""
    return encode_model(model_of("hnerv-boost", True), "hnerv-boost-tiny")


@pytest.mark.parametrize("kind", KINDS)
def test_a_compressed_model_comes_back_number_for_number(kind, model_of):
    model = model_of(kind, True)
    video = StoredVideo(encode_model(model, "a-preset"))
    assert (len(video), video.fps, video.header["method"]) == (NUM_FRAMES, model.frames.info.fps, "a-preset")
    sizes = [tensor.numel() for tensor in model.field.decoder_parameters().values()]
    for stored, wanted in zip(video.codes(), model.quantized_decoder().codes.split(sizes)):
        assert np.array_equal(stored, wanted.numpy())
    if kind in HYBRID:
        codes = model.quantizer.stored_embeddings(model.embeddings)[1].numpy()
        assert np.array_equal(np.stack(video.codes()[-NUM_FRAMES:]), codes)
    for k in (3, 0, 2, 1):
        torch.testing.assert_close(video.decode(k), model.decode_frame(k), rtol=0, atol=1e-5)
        assert video[k].shape == (HEIGHT, WIDTH, 3) and video[k].dtype == np.uint8
    for k in (-1, NUM_FRAMES):
        with pytest.raises(IndexError):
            video[k]


@pytest.mark.parametrize("kind", KINDS)
def test_more_bits_come_closer(kind, model_of):
    model = model_of(kind, False)
    errors, sizes = [], []
    for bits in (4, 6, 8, 12):
        file = encode_model(model, "a-preset", bits)
        errors.append(float((StoredVideo(file).decode(1) - model.decode_frame(1)).abs().mean()))
        sizes.append(len(file))
    assert errors[0] > errors[1] > errors[2] > errors[3] and errors[3] < 1e-2
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_frames_stream_in_order(data, workers):
    video, threads = StoredVideo(data), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        streamed = list(video.stream(workers))
        assert len(streamed) == NUM_FRAMES and torch.get_num_threads() == 2
        # A reader may stop early; nothing goes on in its back.
        early = video.stream(workers)
        next(early)
        early.close()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    for k, frame in enumerate(streamed):
        assert np.abs(frame.astype(int) - video[k]).max() <= 1


def test_the_rate_model_foretells_the_size(model_of):
    model = model_of("hnerv-boost", True)
    video = StoredVideo(encode_model(model, "a-preset"))
    estimate = model.get_run_metrics()["bpp"] * model._num_pixels / 8
    assert video.payload_bytes == pytest.approx(estimate, rel=0.02)


def test_bits_belong_to_uncompressed_models_only(model_of):
    with pytest.raises(InputError, match="leave out --bits"):
        encode_model(model_of("nerv", True), "nerv-tiny", 8)
    with pytest.raises(InputError, match="give --bits 8"):
        encode_model(model_of("nerv", False), "nerv-tiny")
    with pytest.raises(InputError, match="from 2 to 12"):
        encode_model(model_of("nerv", False), "nerv-tiny", 40)


FRESH = """
import sys, numpy as np, torch
import nerfstudio_ext.video
torch.set_num_threads(int(sys.argv[3]))
video = nerfstudio_ext.video.open(sys.argv[1])
frames = np.stack([video[k] for k in reversed(range(len(video)))])[::-1]
np.savez(sys.argv[2], frames=frames, codes=np.concatenate([codes.reshape(-1) for codes in video.codes()]))
"""


def test_a_fresh_process_decodes_the_same(data, model_of, tmp_path):
    """Another process, another number of threads: the same integers, and frames within one level."""
    path = tmp_path / "clip.bnrv"
    path.write_bytes(data)
    command = [sys.executable, "-c", FRESH, str(path), str(tmp_path / "out.npz"), "2"]
    subprocess.run(command, check=True, cwd=REPOSITORY, timeout=200)
    out = np.load(tmp_path / "out.npz")
    video = nerfstudio_ext.video.open(path)
    assert np.array_equal(out["codes"], np.concatenate([codes.reshape(-1) for codes in video.codes()]))
    model = model_of("hnerv-boost", True)
    for k in range(NUM_FRAMES):
        expected = torch.round(model.decode_frame(k).permute(1, 2, 0) * 255).numpy()
        assert np.abs(out["frames"][k].astype(int) - expected).max() <= 1


def with_header(data, change):
    """The file with a changed header and everything else, checksum included, as it should be."""
    (version,) = struct.unpack_from("<H", data, 4)
    size, table_size, num_words = struct.unpack_from("<III", data, 8)
    header = json.loads(zlib.decompress(data[20 : 20 + size]))
    change(header)
    deflated = zlib.compress(json.dumps(header).encode())
    start = struct.pack("<4sHHIII", b"BNRV", version, 0, len(deflated), table_size, num_words)
    body = start + deflated + data[20 + size : -4]
    return body + struct.pack("<I", zlib.crc32(body))


def setting(*path_and_value):
    *path, last, value = path_and_value

    def change(header):
        for name in path:
            header = header[name]
        header[last] = value

    return change


def without(name):
    def change(header):
        del header[name]

    return change


def with_empty_layers(header):
    """The grid stem divides its width by four."""
    header["architecture"].update(stem="grid", lower_width=1)
    header["width"] = 3


HOSTILE = [
    without("method"),
    without("task"),
    with_empty_layers,
    setting("method", 3),
    setting("method", "x" * 300),
    setting("clip", "num_frames", 2**31),
    setting("clip", "num_frames", 0),
    setting("clip", "num_frames", True),
    setting("clip", "num_frames", 2**15),
    setting("clip", "height", 2**14),
    setting("clip", "height", -3),
    setting("clip", "fps", 0),
    setting("clip", "fps", "fast"),
    setting("clip", "name", None),
    setting("clip", "name", "x" * 300),
    setting("clip", []),
    setting("width", 2**12),
    setting("width", 1e300),
    setting("width", 10**400),
    setting("strides", []),
    setting("strides", [16] * 12),
    setting("strides", [2, 2, None]),
    setting("strides", [1, 1, 1]),
    setting("task", "anything"),
    setting("task", ["interpolation"]),
    setting("task", "interpolation"),
    setting("architecture", {}),
    setting("architecture", None),
    setting("architecture", "stem", "grid"),
    setting("architecture", "stem", ["content"]),
    setting("architecture", "activation", "relu"),
    setting("architecture", "num_frequencies", 2**12),
    setting("architecture", "frequency_base", 1e3),
    setting("architecture", "width_divisor", 1e-3),
    setting("architecture", "expansion", 1e3),
    setting("architecture", "kernel_last", 31),
    setting("architecture", "kernel_last", 4),
    setting("architecture", "late_stage_blocks", 2**12),
    setting("architecture", "embedding_channels", 2**12),
    setting("architecture", "condition_hidden", 2**12),
    setting("architecture", "factorised_first_stage", 1),
    setting("architecture", "extra", 1),
]


COST_OF_OPENING = """
import json, re, sys, time
from pathlib import Path
import numpy as np
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.models.stored_video import StoredVideo

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def opened(data):
    try:
        StoredVideo(data, "clip.bnrv")
    except InputError as error:
        return str(error)

for name in sys.argv[1:]:
    data, before, start = Path(name).read_bytes(), peak(), time.monotonic()
    print(json.dumps([opened(data), time.monotonic() - start, peak() - before]))
before = peak()
np.ones(200_000_000, np.uint8)
print(json.dumps(peak() - before))
"""
"""Opens one file after another in a process of its own, whose most memory ever held (kB) nothing else has raised."""


@pytest.fixture(scope="module")
def costs(data, tmp_path_factory):
    """What opening a whole file and then each hostile one says, takes and allocates; the end is a known allocation."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is measured as Linux counts it")
    folder = tmp_path_factory.mktemp("hostile")
    files = [folder / f"{k}.bnrv" for k in range(len(HOSTILE) + 1)]
    for file, content in zip(files, [data, *(with_header(data, change) for change in HOSTILE)]):
        file.write_bytes(content)
    told = subprocess.run([sys.executable, "-c", COST_OF_OPENING, *files], stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in told.stdout.splitlines()]


@pytest.mark.parametrize("place", range(1, len(HOSTILE) + 1))
def test_hostile_headers_are_told_quickly_and_cheaply(costs, place):
    message, seconds, kilobytes = costs[place]
    assert message and re.match(r"clip\.bnrv is no readable \.bnrv video: .*\.$", message)
    assert seconds < 5 and kilobytes < 100_000


def test_costs_are_seen(costs):
    assert costs[0][0] is None and costs[-1] > 150_000


def test_the_dearest_time_codes_are_made_in_bounded_time():
    """As many as a header may ask for, of a base with all the digits of a float."""
    start = time.process_time()
    table = positional_encoding(frame_times(MAX_TIME_CODES // 128, "end"), 1.9999999999999998, 128)
    assert table.numel() == 2 * MAX_TIME_CODES and time.process_time() - start < 10


def test_an_unchanged_header_is_read(data):
    assert len(StoredVideo(with_header(data, lambda header: None))) == NUM_FRAMES


def test_names_cannot_write_to_the_terminal(data):
    video = StoredVideo(with_header(data, setting("clip", "name", "a\x1b[2Jb\n")))
    assert video.clip.name == "a?[2Jb?"
    assert StoredVideo(with_header(data, setting("method", "a\x1b[2J"))).header["method"] == "a?[2J"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), min_size=1, max_size=8), st.booleans())
@example([(0, 1)], False)
def test_changed_bytes_never_do_more_than_tell(data, changes, resealed):
    """Any bytes changed, with the checksum made right again or not: a video or one sentence, nothing else."""
    changed = bytearray(data)
    for place, difference in changes:
        changed[place % len(changed)] ^= difference
    if resealed:
        changed[-4:] = struct.pack("<I", zlib.crc32(changed[:-4]))
    try:
        video = StoredVideo(bytes(changed))
    except InputError:
        return
    assert resealed or bytes(changed) == data
    assert video[0].shape[2] == 3


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        nerfstudio_ext.video.open(tmp_path / "none.bnrv")
    with pytest.raises(InputError, match="cannot be read"):
        nerfstudio_ext.video.open(tmp_path)


def test_frames_are_found_in_their_place(dataset, model_of):
    """A model that has learned its frames decodes frame k as frame k from the file."""
    model = small_model("hnerv-boost", dataset, width=16, strides=(2, 2))
    train(model, dataset, 80, 5e-3, "hnerv-boost")
    model.prepare_eval()
    video = StoredVideo(encode_model(copy.deepcopy(model), "a-preset", 8))
    clip = np.stack([dataset.frames[k] for k in range(NUM_FRAMES)]).astype(float)
    errors = [np.square(clip - video[k]).mean(axis=(1, 2, 3)).argmin() for k in range(NUM_FRAMES)]
    assert errors == list(range(NUM_FRAMES))
