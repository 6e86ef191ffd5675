import resource
import weakref
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.video import contact_sheet, write_video
from nerfstudio_ext.procedural.clip import procedural_clip


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def numbered(num_frames, height=48, width=96):
    """Black frames with a white bar at 2k."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for k, frame in enumerate(frames):
        frame[:, 2 * k : 2 * k + 2] = 255
    return frames


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_every_frame_is_written_in_order(tmp_path, suffix):
    frames = numbered(40)
    count = write_video(iter(frames), tmp_path / "new" / f"a{suffix}", fps=12.5)
    decoded = decode(tmp_path / "new" / f"a{suffix}")
    assert count == len(decoded) == 40
    assert [int(frame[..., 1].mean(axis=0).argmax()) // 2 for frame in decoded] == list(range(40))
    assert [file.name for file in (tmp_path / "new").iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("fps", [25, 24000 / 1001, 29.97, 179 / 6, 0.5, 120])
def test_rate_and_duration_are_kept(tmp_path, fps):
    write_video(numbered(6), tmp_path / "a.mp4", fps=fps)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-4)
        assert float(stream.duration * stream.time_base) == pytest.approx(6 / fps, rel=1e-3)


def test_file_is_plain_h264_with_colour_tags(tmp_path):
    write_video(numbered(3), tmp_path / "a.mp4", fps=25)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.color_primaries) == ("h264", "yuv420p", 1)


def test_quality_is_high(tmp_path):
    """Grey, because 4:2:0 alone takes more from strong colours than x264 does."""
    clip = procedural_clip(8, 96, 160)[..., 1:2].repeat(3, axis=-1)
    write_video(clip, tmp_path / "a.mp4", fps=25)
    error = decode(tmp_path / "a.mp4").astype(float) - clip
    assert 10 * np.log10(255**2 / np.square(error).mean()) > 38


@pytest.mark.parametrize("colour", [(200, 30, 30), (30, 200, 30), (30, 30, 200), (255, 255, 255), (0, 0, 0)])
def test_colours_survive(tmp_path, colour):
    """The matrix that made the colours is the one noted in the file."""
    write_video(np.full((2, 32, 48, 3), colour, np.uint8), tmp_path / "a.mp4", fps=25)
    assert np.abs(decode(tmp_path / "a.mp4").astype(int) - colour).max() <= 4


@pytest.mark.parametrize("height, width", [(33, 47), (32, 47), (33, 48), (1, 1)])
def test_odd_sizes_are_padded_by_repeating_the_border(tmp_path, height, width):
    clip = procedural_clip(2, height, width)
    write_video(clip, tmp_path / "a.mp4", fps=25)
    decoded = decode(tmp_path / "a.mp4").astype(int)
    assert decoded.shape == (2, height + height % 2, width + width % 2, 3)
    assert np.abs(decoded[:, -1] - decoded[:, height - 1]).mean() < 12
    assert np.abs(decoded[:, :, -1] - decoded[:, :, width - 1]).mean() < 12


def test_frames_are_taken_one_at_a_time(tmp_path):
    """A clip of any length can be written: no more than the frame before is still held when the next is asked for."""
    handed_out, most = [], 0

    def stream():
        nonlocal most
        for k in range(40):
            frame = np.full((48, 96, 3), k, np.uint8)
            handed_out.append(weakref.ref(frame))
            most = max(most, sum(reference() is not None for reference in handed_out))
            yield frame

    assert write_video(stream(), tmp_path / "a.mp4", fps=25) == 40
    assert most <= 2


def test_failure_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(numbered(3), path, fps=25)
    before = path.read_bytes()

    def broken():
        yield from numbered(10)
        raise RuntimeError("the model failed")

    with pytest.raises(RuntimeError, match="the model failed"):
        write_video(broken(), path, fps=25)
    with pytest.raises(InputError, match="no frames to write"):
        write_video([], path, fps=25)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


def test_full_disk_is_named_and_leaves_no_draft(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(InputError, match=r"a.mp4 cannot be written"):
            write_video(
                np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8), tmp_path / "a.mp4", 25
            )
        with pytest.raises(InputError, match=r"a.png cannot be written"):
            contact_sheet(np.random.default_rng(0).integers(0, 256, (9, 48, 64, 3), dtype=np.uint8), tmp_path / "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "frames, name, fps, message",
    [
        (
            [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)],
            "a.mp4",
            25,
            r"Frame 1 is uint8 \[8, 10, 3\]",
        ),
        ([np.zeros((8, 8, 3), np.float32)], "a.mp4", 25, "Frame 0 is float32"),
        ([np.zeros((8, 8), np.uint8)], "a.mp4", 25, r"Frame 0 is uint8 \[8, 8\]"),
        ([np.zeros((8, 8, 3), np.uint8)], "a.gif", 25, "must end in one of .mp4 .mov .mkv"),
        ([np.zeros((8, 8, 3), np.uint8)], "a.mp4", 0, "give a positive rate"),
        ([np.zeros((8, 8, 3), np.uint8)], "file/a.mp4", 25, "cannot be written"),
    ],
)
def test_bad_requests_are_refused(tmp_path, frames, name, fps, message):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=message):
        write_video(frames, tmp_path / name, fps)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_contact_sheet_shows_evenly_spaced_frames(tmp_path):
    clip = np.stack([np.full((30, 50, 3), 10 * k, np.uint8) for k in range(25)])
    contact_sheet(clip, tmp_path / "new" / "sheet.png", num_tiles=6, columns=3)
    sheet = np.asarray(Image.open(tmp_path / "new" / "sheet.png"))
    # Tiles of 50x30 with a label strip of 16 beneath and gaps of 4.
    assert sheet.shape == (2 * (30 + 16 + 4) + 4, 3 * (50 + 4) + 4, 3)
    middles = [sheet[4 + 50 * row + 15, 4 + 54 * column + 25, 0] for row in range(2) for column in range(3)]
    assert middles == [0, 50, 100, 140, 190, 240]
    strips = [sheet[34 + 50 * row : 50 + 50 * row] for row in range(2)]
    labels = [strip[:, 4 + 54 * column : 54 + 54 * column] for strip in strips for column in range(3)]
    assert all(label.max() > 150 for label in labels), "every tile has its label"
    assert not np.array_equal(labels[0], labels[1])


def test_contact_sheet_of_few_or_wide_frames(tmp_path):
    contact_sheet(procedural_clip(2, 90, 640), tmp_path / "a.png", labels=["truth", "ours"])
    assert Image.open(tmp_path / "a.png").size == (2 * (320 + 4) + 4, 45 + 16 + 4 + 4)
    contact_sheet(procedural_clip(1, 20, 30), tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (38, 44)
    with pytest.raises(InputError, match="no frames for the contact sheet"):
        contact_sheet([], tmp_path / "b.png")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_paths_may_be_plain_and_odd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(numbered(2), Path("10%d: a.mp4"), fps=25)
    assert len(decode(f"file:{tmp_path}/10%d: a.mp4")) == 2
