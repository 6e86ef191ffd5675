import struct
import wave
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video.reader import open_source

HEIGHT, WIDTH, NUM_FRAMES = 48, 64, 12


def moving_bar(num_frames=NUM_FRAMES):
    """Grey frames with a white bar whose place tells the frame number."""
    frames = np.full((num_frames, HEIGHT, WIDTH, 3), 60, np.uint8)
    for k, frame in enumerate(frames):
        frame[:, 4 * k : 4 * k + 8] = 255
    return frames


def bar_places(frames):
    return [int(frame[..., 1].mean(axis=0).argmax()) // 4 for frame in frames]


def encode(path, frames, codec="libx264", pix_fmt="yuv420p", source_format="rgb24", times=None, **open_options):
    with av.open(str(path), "w", **open_options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        for k, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format=source_format)
            frame.pts, frame.time_base = (k if times is None else times[k]), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_all(source):
    return list(source.read(0, None, 1))


@pytest.mark.parametrize(
    "name, codec, pix_fmt",
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.mov", "mpeg4", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
        ("a.y4m", "wrapped_avframe", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.mpg", "mpeg1video", "yuv420p"),
        ("a 100%d: b.mp4", "libx264", "yuv420p10le"),
    ],
)
def test_containers_give_every_frame_in_order(tmp_path, name, codec, pix_fmt, capsys):
    source = open_source(encode(tmp_path / name, moving_bar(), codec, pix_fmt))
    frames = read_all(source)
    assert (source.num_frames, source.num_missing, source.height, source.width) == (NUM_FRAMES, 0, HEIGHT, WIDTH)
    assert source.fps == pytest.approx(25)
    assert source.num_bytes == (tmp_path / name).stat().st_size
    assert all(frame.shape == (HEIGHT, WIDTH, 3) and frame.dtype == np.uint8 for frame in frames)
    assert all(abs(found - k) <= 1 for k, found in enumerate(bar_places(frames)))
    assert len(frames) == NUM_FRAMES and source.num_damaged == 0
    assert "Warning" not in capsys.readouterr().out


def test_lossless_video_comes_back_bit_for_bit_with_odd_size(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 33, 47, 3), dtype=np.uint8)
    source = open_source(encode(tmp_path / "a.mkv", frames, "ffv1", "bgr0"))
    assert np.array_equal(np.stack(read_all(source)), frames)


def test_read_selects_by_index(tmp_path):
    source = open_source(encode(tmp_path / "a.mkv", moving_bar(), "ffv1", "bgr0"))
    assert bar_places(source.read(2, 9, 3)) == [2, 5, 8]
    assert bar_places(source.read(10, None, 1)) == [10, 11]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_variable_frame_rate_goes_by_index_and_averages_the_rate(tmp_path, name):
    times = np.cumsum([1, 1, 5, 2, 1, 7, 1, 1, 3, 2, 1, 4]).tolist()
    source = open_source(encode(tmp_path / name, moving_bar(), times=times))
    frames = read_all(source)
    assert len(frames) == NUM_FRAMES and source.num_missing == 0
    assert source.fps == pytest.approx(25 * (NUM_FRAMES - 1) / (times[-1] - times[0]), rel=0.03)


def test_frames_cut_off_by_an_edit_list_are_neither_shown_nor_missed(tmp_path):
    """Lossless cutting keeps pictures before the cut in the file, for decoding only."""
    path = encode(tmp_path / "whole.mp4", moving_bar())
    cut = tmp_path / "cut.mp4"
    with av.open(str(path)) as whole, av.open(str(cut), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                ticks = round(5 / 25 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - ticks, packet.dts - ticks, stream
                container.mux(packet)
    source = open_source(cut)
    assert bar_places(read_all(source)) == list(range(5, NUM_FRAMES))
    assert (source.num_frames, source.num_missing) == (NUM_FRAMES - 5, 0)


@pytest.mark.parametrize("name, options", [("a.mp4", {"movflags": "faststart"}), ("a.mkv", {}), ("a.webm", {})])
def test_truncated_video_gives_what_decodes(tmp_path, name, options):
    noise = np.random.default_rng(0).integers(0, 256, (30, HEIGHT, WIDTH, 3), dtype=np.uint8)
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    path = encode(tmp_path / name, noise, codec, options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    assert 3 <= len(read_all(source)) < 27
    assert source.num_frames + source.num_missing == 30


def test_truncated_beyond_use_is_refused(tmp_path):
    path = encode(tmp_path / "a.mp4", moving_bar())
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(InputError, match=r"a.mp4 cannot be read as a video.*cut short"):
        open_source(path)


@pytest.mark.parametrize("name", ["a.mp4", "notes.txt", "empty.mkv", "sound.wav"])
def test_files_that_are_no_video_are_refused(tmp_path, name):
    path = tmp_path / name
    if name == "sound.wav":
        with wave.open(str(path), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(bytes(16000))
    else:
        path.write_text("" if name.startswith("empty") else "no pictures here\n" * 200)
    with pytest.raises(InputError, match=name):
        open_source(path)


def test_missing_path_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.mp4 does not exist: give --data"):
        open_source(tmp_path / "nowhere.mp4")


def test_rotation_noted_in_the_file_is_carried_out(tmp_path):
    frames = np.full((3, HEIGHT, WIDTH, 3), 30, np.uint8)
    frames[:, : HEIGHT // 2, : WIDTH // 2] = 220  # upper left
    path = encode(tmp_path / "phone.mp4", frames)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # track header of version 0: the 3x3 matrix starts at byte 40
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, HEIGHT << 16, 0, 1 << 30)
    path.write_bytes(data)
    frame = read_all(open_source(path))[0]
    assert frame.shape == (WIDTH, HEIGHT, 3)
    # Turned clockwise by a quarter, as players do with this matrix: the bright corner is now the upper right one.
    assert frame[: WIDTH // 2, HEIGHT // 2 :].mean() > 200 and frame[: WIDTH // 2, : HEIGHT // 2].mean() < 60


def test_transparent_video_drops_alpha_with_a_warning(tmp_path, capsys):
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 4), dtype=np.uint8)
    source = open_source(encode(tmp_path / "a.mov", frames, "png", "rgba", "rgba"))
    assert np.array_equal(np.stack(read_all(source)), frames[..., :3])
    assert "transparency is dropped" in " ".join(capsys.readouterr().out.split())


def save_folder(folder, frames, names):
    folder.mkdir(exist_ok=True)
    for frame, name in zip(frames, names):
        Image.fromarray(frame).save(folder / name)
    return folder


def test_folder_is_read_in_natural_order(tmp_path):
    names = [f"frame{k}.png" for k in range(NUM_FRAMES)]
    folder = save_folder(tmp_path / "clip", moving_bar(), names)
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".hidden.png").write_bytes(b"")
    source = open_source(folder)
    assert np.array_equal(np.stack(read_all(source)), moving_bar())
    assert bar_places(source.read(1, 10, 4)) == [1, 5, 9]
    assert (source.name, source.num_frames, source.fps) == ("clip", NUM_FRAMES, 25)
    assert source.num_bytes == sum((folder / name).stat().st_size for name in names)
    assert open_source(folder, fps=12).fps == 12


def test_single_picture_is_a_clip_of_one_frame(tmp_path):
    Image.fromarray(moving_bar()[5]).save(tmp_path / "only.png")
    source = open_source(tmp_path / "only.png")
    assert source.num_frames == 1 and np.array_equal(read_all(source)[0], moving_bar()[5])


def test_pictures_of_all_kinds_become_8_bit_rgb(tmp_path, capsys):
    """Grey, palette, black and white, alpha and 16-bit pictures, next to each other in one folder."""
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colour = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    alpha = np.random.default_rng(1).integers(0, 255, (16, 16, 1), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "0_grey.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "1_palette.png")
    Image.fromarray(grey > 99).save(tmp_path / "2_bilevel.png")
    Image.fromarray(np.concatenate([colour, alpha], axis=-1)).save(tmp_path / "3_alpha.png")
    cv2.imwrite(str(tmp_path / "4_grey16.png"), grey.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "5_colour16.png"), colour[..., ::-1].astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "6_grey16.tiff"), grey.astype(np.uint16) * 256 + 200)

    grey_rgb = np.repeat(grey[..., None], 3, axis=2)
    expected = [grey_rgb, grey_rgb, np.where(grey_rgb > 99, 255, 0), colour, grey_rgb, colour, grey_rgb]
    for frame, wanted, file in zip(read_all(open_source(tmp_path)), expected, sorted(tmp_path.iterdir())):
        assert frame.dtype == np.uint8 and np.array_equal(frame, wanted), file.name
    assert capsys.readouterr().out.count("has transparency") == 1


def test_folder_with_mixed_sizes_is_refused(tmp_path):
    save_folder(tmp_path, [np.zeros((8, 10, 3), np.uint8), np.zeros((8, 12, 3), np.uint8)], ["a.png", "b.png"])
    with pytest.raises(InputError, match=r"b.png is 12x8 and a.png is 10x8: resize or remove"):
        read_all(open_source(tmp_path))


def test_folder_without_frames_is_refused(tmp_path):
    with pytest.raises(InputError, match="it is empty"):
        open_source(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"it holds clip.mp4.*path of a video file"):
        open_source(tmp_path)


def test_broken_and_floating_point_pictures_are_refused(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(InputError, match=r"a.tiff holds floating-point pixels"):
        open_source(tmp_path)
    (tmp_path / "a.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(InputError, match=r"a.png cannot be read as a picture"):
        open_source(tmp_path)


def grey_yuv(width, height, levels):
    """Raw 8-bit 4:2:0 frames without colour, one luma level each."""
    chroma = 2 * ((width + 1) // 2) * ((height + 1) // 2)
    return b"".join(bytes([level]) * (width * height) + bytes([128]) * chroma for level in levels)


@pytest.mark.parametrize("width, height", [(32, 16), (15, 7)])
def test_raw_yuv_takes_size_and_rate_from_its_name(tmp_path, width, height):
    path = tmp_path / f"Beauty_{width}x{height}_120fps_420_8bit_YUV.yuv"
    path.write_bytes(grey_yuv(width, height, [16, 126, 235]))
    source = open_source(path)
    assert (source.num_frames, source.height, source.width, source.fps) == (3, height, width, 120)
    frames = np.stack(read_all(source)).astype(int)
    # Limited range: 16 is black, 235 is white.
    assert np.abs(frames - np.array([0, 128, 255])[:, None, None, None]).max() <= 2
    assert open_source(path, fps=30).fps == 30


def test_raw_yuv_takes_its_size_from_the_flag(tmp_path, capsys):
    path = tmp_path / "clip.yuv"
    path.write_bytes(grey_yuv(32, 16, [16, 235])[:-5])
    with pytest.raises(InputError, match="give --yuv-size WIDTH HEIGHT"):
        open_source(path)
    with pytest.raises(InputError, match="one frame of 320x160 needs 76800"):
        open_source(path, yuv_size=(320, 160))
    source = open_source(path, yuv_size=(32, 16))
    assert len(read_all(source)) == source.num_frames == 1 and source.num_damaged == 0
    assert "no whole number of 32x16 frames" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["a_16x8_10bit.yuv", "a_16x8_444_8bit.yuv"])
def test_raw_yuv_of_another_layout_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(10000))
    with pytest.raises(InputError, match="8-bit 4:2:0"):
        open_source(tmp_path / name)


@pytest.mark.parametrize(
    "name, num_frames, height, width, fps",
    [
        ("video_bunny/bigbuckbunny.mp4", 132, 720, 1280, 25),
        ("video_misc/bottle-detection.mp4", 1189, 360, 640, 179 / 6),
        ("talking_grid/bbaf2n.mpg", 75, 288, 360, 25),
        ("buddha_idr/image_gray", 67, 385, 684, 25),
    ],
)
def test_real_clips(shared_data, name, num_frames, height, width, fps):
    source = open_source(shared_data / name)
    assert (source.num_frames, source.num_missing) == (num_frames, 0)
    assert (source.height, source.width, source.fps) == (height, width, pytest.approx(fps))
    first = next(source.read(0, 0, 1))
    assert first.shape == (height, width, 3) and first.std() > 10
