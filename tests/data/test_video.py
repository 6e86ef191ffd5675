"""Whole frames of a clip as training and evaluation see them."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from dataparsers.video_frames import VideoDataParserConfig
from nerfstudio_ext.data.video import VideoDataManagerConfig, VideoDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video import frames as frames_module
from nerfstudio_ext.video.frames import ClipInfo, FrameStore

NUM_FRAMES, HEIGHT, WIDTH = 7, 12, 20


def parser(num_frames=NUM_FRAMES, **changes):
    return VideoDataParserConfig(procedural_frames=num_frames, procedural_size=(WIDTH, HEIGHT), **changes)


def manager(num_frames=NUM_FRAMES, rank=0, world_size=1, **changes):
    config = VideoDataManagerConfig(dataparser=parser(num_frames), **changes)
    return config.setup(device="cpu", test_mode="val", world_size=world_size, local_rank=rank)


@pytest.mark.parametrize("per_step, num_frames", [(1, 7), (2, 8), (7, 7)])
def test_an_epoch_visits_each_frame_once(per_step, num_frames):
    data = manager(num_frames, frames_per_step=per_step)
    assert data.steps_per_epoch == num_frames // per_step
    for epoch in range(3):
        steps = range(epoch * data.steps_per_epoch, (epoch + 1) * data.steps_per_epoch)
        assert sorted(k for step in steps for k in data.train_frames(step)) == list(range(num_frames))


def test_epochs_have_their_own_order():
    data = manager(16)
    orders = [tuple(data.train_frames(16 * epoch + k)[0] for k in range(16)) for epoch in range(4)]
    assert len(set(orders)) == 4


def test_order_is_a_pure_function_of_step_and_seed():
    """A resumed run goes on with the frames that the stopped one would have seen, whatever happened in between."""
    expected = [manager().train_frames(step) for step in range(30)]
    torch.manual_seed(123)
    again = manager()
    assert [again.train_frames(step) for step in reversed(range(30))] == expected[::-1]
    other = manager(train_cameras_sampling_seed=5)
    assert [other.train_frames(step) for step in range(30)] != expected


def test_frames_that_do_not_fill_a_step_wait_for_another_epoch():
    data = manager(frames_per_step=2)
    assert data.steps_per_epoch == 3
    seen = [k for step in range(3) for k in data.train_frames(step)]
    assert len(seen) == len(set(seen)) == 6
    assert {k for step in range(30) for k in data.train_frames(step)} == set(range(7))


@pytest.mark.parametrize("world_size, per_step", [(2, 1), (3, 1), (2, 2)])
def test_ranks_are_disjoint_and_complete(world_size, per_step):
    num_frames = 12
    ranks = [manager(num_frames, rank, world_size, frames_per_step=per_step) for rank in range(world_size)]
    steps = ranks[0].steps_per_epoch
    assert steps == num_frames // (world_size * per_step)
    for epoch in range(2):
        seen = [k for step in range(steps) for rank in ranks for k in rank.train_frames(epoch * steps + step)]
        assert sorted(seen) == list(range(num_frames))


def test_fewer_frames_than_a_step_takes():
    """One frame still trains, on every rank and in every place of the batch."""
    data = manager(1, rank=1, world_size=2, frames_per_step=3)
    assert data.steps_per_epoch == 1
    assert data.train_frames(0) == [0, 0, 0]


def test_training_batch_pairs_frames_with_their_cameras():
    data = manager(frames_per_step=3)
    cameras, batch = data.next_train(4)
    assert batch["image"].shape == (3, HEIGHT, WIDTH, 3)
    assert batch["image_idx"].tolist() == data.train_frames(4)
    for position, index in enumerate(batch["image_idx"].tolist()):
        expected = torch.from_numpy(data.train_dataset.frames[index].copy()).float() / 255
        assert torch.equal(batch["image"][position], expected)
        assert float(cameras.times[position]) == pytest.approx(index / (NUM_FRAMES - 1))


def test_frames_are_exact_floats_between_zero_and_one():
    data = manager()
    image = data.next_eval_image(0)[1]["image"]
    assert image.dtype == torch.float32 and float(image.min()) >= 0 and float(image.max()) <= 1
    assert torch.equal(image * 255, (image * 255).round())


def test_evaluation_serves_every_frame_in_order():
    data = manager()
    loader = data.fixed_indices_eval_dataloader
    assert len(loader) == NUM_FRAMES
    for index, (camera, batch) in enumerate(loader):
        assert camera.shape == (1,) and batch["image_idx"] == index
        assert float(camera.times) == pytest.approx(index / (NUM_FRAMES - 1))
        expected = torch.from_numpy(data.eval_dataset.frames[index].copy()).float() / 255
        assert torch.equal(batch["image"], expected)
    assert index == NUM_FRAMES - 1
    with pytest.raises(IndexError):
        loader[NUM_FRAMES]


def test_evaluation_reads_frames_only_when_asked(monkeypatch):
    data = manager()
    asked = []
    batch = FrameStore.batch
    monkeypatch.setattr(
        FrameStore, "batch", lambda store, indices, device: asked.append(list(indices)) or batch(store, indices, device)
    )
    loader = data.fixed_indices_eval_dataloader
    assert asked == []
    loader[5]
    assert asked == [[5]]


@pytest.mark.parametrize("num_frames, interval", [(1, 500), (2, 500), (7, 1), (50, 500), (132, 500), (100, 100)])
def test_single_evaluations_spread_over_the_clip(num_frames, interval):
    """Whatever the interval between them, evaluations during training see more than one corner of the clip."""
    data = manager(num_frames)
    state = torch.random.get_rng_state()
    seen = {data.next_eval_image(step)[1]["image_idx"] for step in range(0, 8 * interval, interval)}
    assert torch.equal(state, torch.random.get_rng_state())
    assert len(seen) >= min(num_frames, 4)
    assert max(seen) - min(seen) >= num_frames // 2


def test_evaluation_batch_has_a_frame_axis():
    camera, batch = manager().next_eval(3)
    assert camera.shape == (1,) and batch["image"].shape == (1, HEIGHT, WIDTH, 3)


def test_train_and_evaluation_share_one_decoded_clip():
    data = manager()
    assert data.train_dataset.frames is data.eval_dataset.frames
    assert data.train_dataset.metadata["frames"] is data.train_dataset.frames
    assert copy.deepcopy(data.train_dataset.metadata)["frames"] is data.train_dataset.frames


def test_rays_per_batch_counts_pixels():
    assert manager(frames_per_step=2).get_train_rays_per_batch() == 2 * HEIGHT * WIDTH


def test_dataset_refuses_the_host_scale_factor():
    outputs = parser().setup().get_dataparser_outputs("train")
    with pytest.raises(InputError, match="--max-side"):
        VideoDataset(outputs, scale_factor=0.5)


def test_dataset_opens_without_its_source(tmp_path):
    """Only facts are left: the viewer's frusta get grey, and asking for real frames says what is gone."""
    outputs = parser().setup().get_dataparser_outputs("train")
    gone = replace(outputs.metadata["clip_options"], source=tmp_path / "gone.mp4")
    outputs.metadata["clip_options"] = gone
    dataset = VideoDataset(outputs)
    assert not dataset.frames.available
    image = dataset.get_numpy_image(3)
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8 and len(np.unique(image)) == 1
    with pytest.raises(InputError, match=r"gone\.mp4"):
        dataset.frames.batch([0], "cpu")


def test_datapath_falls_back_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert manager().get_datapath() == tmp_path


def test_clip_info_is_what_the_cameras_say():
    data = manager()
    info = data.train_dataset.metadata["clip"]
    assert isinstance(info, ClipInfo)
    assert (info.num_frames, info.height, info.width) == (NUM_FRAMES, HEIGHT, WIDTH)
    assert len(data.train_dataset) == NUM_FRAMES and int(data.train_dataset.cameras.width[0]) == WIDTH
    assert frames_module.open_clip(data.train_dataset.metadata["clip_options"]) is data.train_dataset.frames
