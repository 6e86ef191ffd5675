import copy
import os
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.video import write_video
from nerfstudio_ext.procedural.clip import procedural_clip
from nerfstudio_ext.video import frame_cache, frames
from nerfstudio_ext.video.frames import ClipInfo, ClipOptions, open_clip
from nerfstudio_ext.video.reader import FolderSource, open_source
from nerfstudio_ext.video.resize import box_average, resize_frame, target_size

HEIGHT, WIDTH, NUM_FRAMES = 24, 36, 10


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, pixels):
    """A folder of lossless frames."""
    path = tmp_path / "clip"
    path.mkdir()
    for k, frame in enumerate(pixels):
        Image.fromarray(frame).save(path / f"{k}.png")
    return path


def take(store):
    return np.stack([store[k] for k in range(len(store))])


def test_clip_comes_back_whole(folder, pixels):
    store = open_clip(ClipOptions(folder))
    num_bytes = sum(file.stat().st_size for file in folder.iterdir())
    assert store.info == ClipInfo(NUM_FRAMES, HEIGHT, WIDTH, 25.0, "clip", num_bytes)
    assert store.available and len(store) == NUM_FRAMES
    assert np.array_equal(take(store), pixels)


@pytest.mark.parametrize(
    "options, chosen",
    [
        ({"first_frame": 3}, slice(3, None)),
        ({"last_frame": 4}, slice(0, 5)),
        ({"first_frame": 1, "last_frame": 8, "frame_step": 3}, slice(1, 9, 3)),
        ({"first_frame": 9}, slice(9, None)),
        ({"frame_step": 100}, slice(0, 1)),
    ],
)
def test_selection(folder, pixels, options, chosen):
    store = open_clip(ClipOptions(folder, **options))
    assert np.array_equal(take(store), pixels[chosen])
    assert store.info.num_frames == len(pixels[chosen])
    assert store.info.fps == pytest.approx(25 / options.get("frame_step", 1))


def test_crop_then_resize(folder, pixels):
    store = open_clip(ClipOptions(folder, crop=(4, 2, 20, 16), size=(8, 5), fps=10))
    blocks = pixels[:, 2:18, 4:24].reshape(NUM_FRAMES, 8, 2, 5, 4, 3)
    assert np.array_equal(take(store), np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8))
    assert (store.info.height, store.info.width, store.info.fps) == (8, 5, 10)


@pytest.mark.parametrize("rows, columns", [(2, 2), (4, 4), (3, 9), (24, 36)])
def test_box_average_rounds_the_exact_mean(pixels, rows, columns):
    naive = pixels[0].reshape(HEIGHT // rows, rows, WIDTH // columns, columns, 3).astype(float).mean(axis=(1, 3))
    assert np.array_equal(box_average(pixels[0], rows, columns), np.rint(naive).astype(np.uint8))


def test_resize_keeps_means_when_shrinking_and_flat_pictures_always(pixels):
    small = resize_frame(pixels[0], 10, 13)
    assert small.shape == (10, 13, 3)
    assert small.mean() == pytest.approx(pixels[0].mean(), abs=1)
    flat = np.full((9, 7, 3), 77, np.uint8)
    for size in ((4, 3), (18, 20), (5, 20)):
        assert np.array_equal(resize_frame(flat, *size), np.full((*size, 3), 77, np.uint8))


@pytest.mark.parametrize(
    "height, width, max_side, expected",
    [(720, 1280, 320, (180, 320)), (1080, 1920, 640, (360, 640)), (1280, 720, 100, (100, 56)), (30, 40, 64, (30, 40))],
)
def test_max_side_keeps_the_aspect_and_never_enlarges(height, width, max_side, expected):
    assert target_size(height, width, None, max_side) == expected


def test_quarter_size_bunny_is_the_exact_box_average(shared_data):
    """The benchmark clip of the method card: every pixel the rounded mean of 4x4 source pixels."""
    bunny = shared_data / "video_bunny" / "bigbuckbunny.mp4"
    store = open_clip(ClipOptions(bunny, max_side=320, last_frame=11))
    assert (store.info.height, store.info.width, store.info.fps) == (180, 320, 25)
    for k, frame in enumerate(open_source(bunny).read(0, 11, 1)):
        mean = frame.reshape(180, 4, 320, 4, 3).astype(float).mean(axis=(1, 3))
        assert np.array_equal(store[k], np.rint(mean).astype(np.uint8))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"first_frame": 10}, "--first-frame 10 lies beyond the clip, whose 10 frames count from 0 to 9"),
        ({"last_frame": 10}, "--last-frame 10 lies beyond"),
        ({"first_frame": 5, "last_frame": 4}, "--first-frame 5 --last-frame 4"),
        ({"frame_step": 0}, "--frame-step 0"),
        ({"first_frame": -1}, "--first-frame -1"),
        ({"crop": (20, 0, 20, 10)}, "--crop 20 0 20 10 .* 36 wide and 24 high"),
        ({"crop": (0, 0, 0, 10)}, "--crop 0 0 0 10"),
        ({"size": (8, 8), "max_side": 8}, "--size and --max-side exclude each other"),
        ({"size": (0, 8)}, "--size 8 0"),
        ({"max_side": 0}, "--max-side 0"),
        ({"fps": 0.0}, "--fps 0.0 must be positive"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder, options, message):
    with pytest.raises(InputError, match=message):
        open_clip(ClipOptions(folder, **options))


def test_procedural_clip_needs_no_source():
    store = open_clip(ClipOptions(None, procedural_frames=6, procedural_size=(18, 30), first_frame=2, frame_step=2))
    assert np.array_equal(take(store), procedural_clip(6, 18, 30)[2::2])
    assert (store.info.name, store.info.source_bytes, store.info.fps) == ("procedural", 0, 12.5)
    with pytest.raises(InputError, match="--procedural-frames"):
        open_clip(ClipOptions(None, procedural_frames=0))


def test_same_options_share_one_store(folder, monkeypatch):
    store = open_clip(ClipOptions(folder))
    assert open_clip(ClipOptions(folder)) is store
    monkeypatch.chdir(folder.parent)
    assert open_clip(ClipOptions(Path("clip"))) is store
    assert open_clip(ClipOptions(folder, last_frame=3)) is not store
    assert open_clip(ClipOptions(folder)) is store
    assert copy.deepcopy({"frames": store})["frames"] is store


def test_changed_files_are_read_again(folder):
    before = open_clip(ClipOptions(folder))
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(folder / "4.png")
    after = open_clip(ClipOptions(folder))
    assert before[4].any() and not after[4].any()


def test_unused_stores_are_freed(folder):
    open_clip(ClipOptions(folder))
    open_clip(ClipOptions(folder, frame_step=2))
    assert sum(options.source == folder for options, _ in frames._stores) == 1


@pytest.mark.parametrize("indices", [[3, 0, 3], torch.tensor([3, 0, 3]), np.array([3, 0, 3])])
def test_batch_is_the_frames_in_unit_range(folder, pixels, indices):
    batch = open_clip(ClipOptions(folder)).batch(indices, "cpu")
    assert batch.shape == (3, 3, HEIGHT, WIDTH) and batch.dtype == torch.float32
    assert torch.equal(batch, torch.from_numpy(pixels[[3, 0, 3]]).permute(0, 3, 1, 2).float() / 255)
    assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
def test_batch_on_cuda_uploads_the_clip_once(folder):
    store = open_clip(ClipOptions(folder))
    expected = store.batch([3, 0, 9], "cpu")
    assert torch.equal(store.batch([3, 0, 9], "cuda").cpu(), expected)
    before = torch.cuda.memory_allocated()
    assert torch.equal(store.batch(torch.tensor([3, 0, 9], device="cuda"), "cuda").cpu(), expected)
    assert torch.cuda.memory_allocated() <= before


def test_frames_out_of_range_are_refused(folder):
    store = open_clip(ClipOptions(folder))
    for k in (-1, NUM_FRAMES):
        with pytest.raises(IndexError, match="frames 0 to 9"):
            store[k]
        with pytest.raises(IndexError, match="frames 0 to 9"):
            store.batch([0, k], "cpu")


def test_known_clip_opens_without_its_source(tmp_path):
    options = ClipOptions(tmp_path / "gone.mp4")
    with pytest.raises(InputError, match=r"gone.mp4 does not exist"):
        open_clip(options)
    known = ClipInfo(5, 8, 6, 25.0, "gone", 1000)
    store = open_clip(options, known)
    assert store.info == known and len(store) == 5 and not store.available
    for read in (lambda: store[0], lambda: store.batch([0], "cpu")):
        with pytest.raises(InputError, match=r"gone.mp4.* is gone"):
            read()


def test_truncated_clip_is_used_as_far_as_it_goes(tmp_path, capsys):
    path = tmp_path / "cut.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    write_video(noise, path, fps=25)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    store = open_clip(ClipOptions(path))
    assert 3 <= len(store) < 27
    message = " ".join(capsys.readouterr().out.split())
    assert f"cut.mp4 is damaged or cut short: {len(store)} of the chosen 30 frames" in message
    with pytest.raises(InputError, match="None of the chosen frames"):
        open_clip(ClipOptions(path, first_frame=28))


def test_more_frames_than_announced_are_all_read(folder, pixels, monkeypatch):
    class Modest(FolderSource):
        def __init__(self, *args):
            super().__init__(*args)
            self.num_frames = 4

    monkeypatch.setattr("nerfstudio_ext.video.reader.FolderSource", Modest)
    assert np.array_equal(take(open_clip(ClipOptions(folder))), pixels)


def test_decoding_needs_no_memory_beyond_the_clip(tmp_path):
    write_video(np.zeros((40, 240, 320, 3), np.uint8), tmp_path / "a.mp4", fps=25, preset="ultrafast")
    open_source(tmp_path / "a.mp4")  # imports are not counted
    tracemalloc.start()
    store = open_clip(ClipOptions(tmp_path / "a.mp4"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    frame_bytes = 240 * 320 * 3
    assert len(store) == 40
    assert peak < (40 + 5) * frame_bytes


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NERFSTUDIO_EXT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "frames"


def test_clip_beyond_the_budget_streams_from_disk(folder, pixels, cache):
    options = ClipOptions(folder, memory_budget_gb=0.0)
    store = open_clip(options)
    assert isinstance(store._frames.base, np.memmap) or isinstance(store._frames, np.memmap)
    assert np.array_equal(take(store), pixels)
    assert torch.equal(store.batch([7, 2], "cpu"), open_clip(ClipOptions(folder)).batch([7, 2], "cpu"))


def test_decoded_clip_is_found_again_by_the_next_process(folder, pixels, cache, monkeypatch):
    options = ClipOptions(folder, memory_budget_gb=0.0, frame_step=3)
    open_clip(options)
    (entry,) = cache.iterdir()
    stamp = (entry / "frames.npy").stat().st_mtime_ns
    monkeypatch.setattr(frames, "_stores", {})
    assert np.array_equal(take(open_clip(options)), pixels[::3])
    assert list(cache.iterdir()) == [entry] and (entry / "frames.npy").stat().st_mtime_ns == stamp

    os.utime(folder / "3.png", ns=(1, 1))
    open_clip(options)
    assert len(list(cache.iterdir())) == 2, "a changed source is decoded anew"


def test_failed_decoding_leaves_nothing_in_the_cache(folder, cache):
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(folder / "7.png")
    with pytest.raises(InputError, match="must have one size"):
        open_clip(ClipOptions(folder, memory_budget_gb=0.0))
    assert list(cache.iterdir()) == []


def test_too_small_a_disk_is_refused_before_decoding(folder, cache, monkeypatch):
    monkeypatch.setattr(frame_cache, "_SPARE_BYTES", 1e18)
    with pytest.raises(
        InputError, match=r"No space left on device.*point the variable NERFSTUDIO_EXT_CACHE to another"
    ):
        open_clip(ClipOptions(folder, memory_budget_gb=0.0))
    assert list(cache.iterdir()) == []


def test_disk_that_refuses_a_large_file_is_named(folder, cache):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(InputError, match=r"cannot be kept in .*cache/frames"):
            open_clip(ClipOptions(folder, memory_budget_gb=0.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(cache.iterdir()) == []
