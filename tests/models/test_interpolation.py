"""Interpolation: even frames train, odd ones take their neighbours' embeddings, and times between frames count."""

import copy
from fractions import Fraction

import pytest
import torch

from dataparsers.video_frames import VideoDataParserConfig
from nerfstudio_ext.data.video import VideoDataManagerConfig
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.models.stored_video import StoredVideo, encode_model
from nerfstudio_ext.video.quantization import CompressionConfig
from nerfstudio_ext.video.time_encoding import frame_times, positional_encoding
from tests.models.test_boosting_nerv import HEIGHT, HYBRID, WIDTH, preset, small_model
from tests.reference.plain_nerv import KINDS


def parser(frames):
    return VideoDataParserConfig(
        procedural_frames=frames, procedural_size=(WIDTH, HEIGHT), task="interpolation", frame_step=1
    )


@pytest.fixture(scope="module")
def manager():
    return VideoDataManagerConfig(dataparser=parser(8)).setup(device="cpu")


def smooth_model(kind, dataset, **changes):
    field = copy.deepcopy(preset(kind).pipeline.model.field)
    field.frequency_base, field.encoder_width = 1.05, 16
    model = small_model(kind, dataset, field=field, **changes).eval()
    model._embeddings_stale = model.embeddings is not None
    return model


@pytest.mark.parametrize("frames, used", [(7, 7), (8, 7), (3, 3)])
def test_even_frames_train_and_odd_ones_score(frames, used):
    splits = {split: parser(frames).setup().get_dataparser_outputs(split) for split in ("train", "val", "test")}
    train, test = splits["train"], splits["test"]
    assert train.metadata["frame_numbers"] == tuple(range(0, used, 2))
    assert test.metadata["frame_numbers"] == splits["val"].metadata["frame_numbers"] == tuple(range(1, used, 2))
    times = torch.tensor(test.metadata["frame_numbers"]) / (used - 1)
    torch.testing.assert_close(test.cameras.times[:, 0], times)
    assert test.image_filenames[0].stem == "frame_00001" and train.metadata["clip"].num_frames == used


def test_too_short_a_clip():
    with pytest.raises(InputError, match="at least 3 frames"):
        parser(2).setup().get_dataparser_outputs("train")


def test_a_reloaded_parser_fits_its_own_notes():
    config = parser(8)
    config.setup().get_dataparser_outputs("train")
    assert config.clip.num_frames == 7
    assert config.setup().get_dataparser_outputs("test").metadata["clip"].num_frames == 7


def test_cameras_and_pictures_belong_together(manager):
    frames = manager.train_dataset.frames
    assert len(frames) == 7 and manager.steps_per_epoch == 4
    for step in range(4):
        camera, batch = manager.next_train(step)
        number = int(torch.round(camera.times[0, 0] * 6))
        assert number % 2 == 0
        assert torch.equal(batch["image"][0], frames.batch([number], "cpu")[0].permute(1, 2, 0))
    for index, (camera, batch) in enumerate(manager.fixed_indices_eval_dataloader):
        assert int(torch.round(camera.times[0, 0] * 6)) == 2 * index + 1
        assert torch.equal(batch["image"], frames.batch([2 * index + 1], "cpu")[0].permute(1, 2, 0))


@pytest.mark.parametrize("kind", HYBRID)
def test_missing_frames_take_their_neighbours_mean(kind, manager):
    model = smooth_model(kind, manager.train_dataset)
    single = model._stored_embeddings(torch.tensor([3])).clone()
    model.prepare_eval()
    table = model.embeddings
    torch.testing.assert_close(table[1::2], (table[:-1:2] + table[2::2]) / 2)
    torch.testing.assert_close(single[0], table[3])
    with torch.no_grad():
        known = model.field.encode(manager.train_dataset.frames.batch([4], "cpu"))
    torch.testing.assert_close(table[4:5], known, rtol=1e-4, atol=1e-5)
    assert model.size_report()["num_embeddings"] == 4 * 16 * 3 * 5


@pytest.mark.extra("constriction")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_holds_the_even_frames_and_shows_all(kind, manager):
    """Compressed: to the last bit of the codes what the model shows, at frames and between them."""
    first = smooth_model(kind, manager.train_dataset)
    first.prepare_eval()
    model = smooth_model(kind, manager.train_dataset, compression=CompressionConfig())
    model.start_compression(first.state_dict())
    model.prepare_eval()
    video = StoredVideo(encode_model(model, "a-preset"))
    tensors = len(model.field.decoder_parameters())
    assert len(video) == 7 and video.header["task"] == "interpolation"
    assert len(video.codes()) == tensors + (4 if kind in HYBRID else 0)
    for k in range(7):
        torch.testing.assert_close(video.decode(k), model.decode_frame(k), rtol=0, atol=1e-5)
    for position in (0.25, 2.5, 5.9):
        torch.testing.assert_close(video.decode_between(position), model.decode_between(position), rtol=0, atol=1e-5)
    quantised = StoredVideo(encode_model(first, "a-preset", 12))
    assert float((quantised.decode(3) - first.decode_frame(3)).abs().mean()) < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_times_between_frames(kind, manager):
    """At a frame it is that frame; between two it moves on gradually; with steep time codes the nearest is shown."""
    model = smooth_model(kind, manager.train_dataset)
    model.prepare_eval()
    torch.testing.assert_close(model.decode_between(2.0), model.decode_frame(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(model.decode_between(6.0), model.decode_frame(6), rtol=0, atol=1e-5)
    near, half = (float((model.decode_between(2 + x) - model.decode_frame(2)).abs().mean()) for x in (0.002, 0.5))
    assert 0 < near < half
    camera = copy.deepcopy(manager.train_dataset.cameras[:1])
    camera.times = torch.tensor([[2.4 / 6]])
    shown = model.get_outputs_for_camera(camera)["rgb"].permute(2, 0, 1)
    torch.testing.assert_close(shown, model.decode_between(2.4), rtol=0, atol=1e-4)
    model.config.field.frequency_base = 1.25
    assert torch.equal(model.get_outputs_for_camera(camera)["rgb"].permute(2, 0, 1), model.decode_frame(2))


@pytest.mark.parametrize("kind", ["nerv", "nerv-boost", "e-nerv"])
def test_time_codes_between_frames_follow_the_convention(kind, manager):
    model = smooth_model(kind, manager.train_dataset)
    config = model.field.config
    times = frame_times(7, config.time_convention)
    expected = positional_encoding([(times[3] + times[4]) / 2], config.frequency_base, config.num_frequencies)
    torch.testing.assert_close(model.field.time_code_between(Fraction(7, 2), 7), expected)
