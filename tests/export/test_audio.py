"""Sound copied from a source into a written video, and what cannot be copied."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.audio import add_audio
from nerfstudio_ext.export.video import write_video


def with_sound(path: Path, seconds: float) -> Path:
    """A file with a tone and no pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        for start in range(0, int(44100 * seconds), 1024):
            wave = np.sin(np.arange(start, start + 1024) * 0.06).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "out.mp4"
    write_video([np.full((32, 48, 3), 40 * k, np.uint8) for k in range(5)], path, 10)
    return path


def test_sound_lasts_as_long_as_the_pictures(video, tmp_path):
    before = [frame.to_ndarray() for frame in av.open(str(video)).decode(video=0)]
    add_audio(video, with_sound(tmp_path / "tone.mp4", seconds=3))
    with av.open(str(video)) as container:
        after = [frame.to_ndarray() for frame in container.decode(video=0)]
    with av.open(str(video)) as container:
        sound = [frame for frame in container.decode(audio=0)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert 0.45 < sum(frame.samples for frame in sound) / 44100 < 0.6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "tone.mp4"]


def test_sound_that_fails_leaves_the_old_video(video, tmp_path):
    data = video.read_bytes()
    with pytest.raises(InputError, match="has no sound"):
        write_video([np.zeros((32, 48, 3), np.uint8)], video, 10, sound=video)
    assert video.read_bytes() == data and [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_no_sound_and_no_file(video, tmp_path):
    data = video.read_bytes()
    with pytest.raises(InputError, match="has no sound"):
        add_audio(video, video)
    with pytest.raises(InputError, match="cannot be read"):
        add_audio(video, tmp_path / "none.mp4")
    assert video.read_bytes() == data and len(list(tmp_path.iterdir())) == 1
