"""The fuzzer's seeds are read, and its target tells faults: both must hold for a fuzz run to mean anything."""

from pathlib import Path

import numpy as np
import pytest

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.models.stored_video import read_video
from tests.fuzz.fuzz_bnrv import one_case, parts_of, read, sealed

pytestmark = pytest.mark.extra("constriction")
SEEDS = sorted(Path(__file__).with_name("corpus").glob("*.bnrv"))


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: path.stem)
def test_seeds_are_videos(seed):
    data = seed.read_bytes()
    video = read_video(seed)
    assert read(data) == sum(codes.size for codes in video.codes()) > 0
    assert video[2].shape == (9, 14, 3)
    assert read(sealed(*parts_of(data))) == read(data)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: path.stem)
def test_seeds_decode_to_what_they_did_when_they_were_written(seed):
    """Another version of a package may change neither codes nor frames (but for their last 8-bit level)."""
    video, written = read_video(seed), np.load(seed.with_name("decoded.npz"))
    assert np.array_equal(np.concatenate([c.reshape(-1) for c in video.codes()]), written[f"{seed.stem}/codes"])
    assert np.abs(np.stack(list(video.stream(1))).astype(int) - written[f"{seed.stem}/frames"]).max() <= 1


def test_seeds_have_one_of_everything():
    assert len(SEEDS) == 8
    videos = {seed.stem: read_video(seed) for seed in SEEDS}
    assert videos["interpolated"].header["task"] == "interpolation"
    assert any(video._table.distributions.zeros.any() for video in videos.values())


def test_the_target_lets_nothing_else_through(monkeypatch):
    data = SEEDS[0].read_bytes()
    one_case(data)
    one_case(data[:-1])
    with pytest.raises(InputError):
        read(data[:-1])
    monkeypatch.setattr("nerfstudio_ext.video.bitstream.container.zlib.crc32", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        one_case(data)
