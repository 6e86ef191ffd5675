"""The model around the six networks: frames by time, the embedding table, sizes, and that it learns."""

import copy
from dataclasses import replace

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle

from dataparsers.video_frames import VideoDataParserConfig
from method_configs import boosting_nerv as presets
from nerfstudio_ext.data.video import VideoDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.metrics import psnr
from tests.reference.plain_nerv import KINDS

HYBRID = ("hnerv", "hnerv-boost")
NUM_FRAMES, HEIGHT, WIDTH = 4, 23, 38


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Networks as small as these only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def dataset():
    """Four frames of the procedural clip, far apart in time, of a size that nothing divides."""
    parser = VideoDataParserConfig(procedural_frames=12 * NUM_FRAMES, frame_step=12, procedural_size=(WIDTH, HEIGHT))
    return VideoDataset(parser.setup().get_dataparser_outputs("train"))


def preset(kind):
    return getattr(presets, f"{kind.replace('-', '_')}_tiny").config


def small_model(kind, dataset, seed=0, **changes):
    """The tiny preset's model, narrow enough for a test."""
    config = copy.deepcopy(preset(kind).pipeline.model)
    changes = {"width": 12, "strides": (2, 2, 2), **changes}
    config.field.encoder_width = 16
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    return config.setup(
        scene_box=dataset.scene_box,
        num_train_data=len(dataset),
        metadata=dataset.metadata,
        device="cpu",
        grad_scaler=None,
    )


def batch_of(dataset, indices):
    indices = torch.tensor(indices)
    images = dataset.frames.batch(indices, "cpu").permute(0, 2, 3, 1)
    return dataset.cameras[indices], {"image": images, "image_idx": indices}


def train(model, dataset, steps, learning_rate=5e-3, kind="hnerv-boost"):
    """Frame by frame with the preset's optimizer; returns the losses."""
    settings = replace(preset(kind).optimizers["field"]["optimizer"], lr=learning_rate)
    optimizer = settings.setup(model.get_param_groups()["field"])
    model.train()
    losses = []
    for step in range(steps):
        camera, batch = batch_of(dataset, [step % len(dataset)])
        loss = model.get_loss_dict(model.get_outputs(camera), batch)["reconstruction_loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    model.eval()
    return losses


def decoded_clip(model):
    """Every frame as the stored video gives it."""
    model.eval()
    model.prepare_eval()
    return torch.stack([model.decode_frame(k) for k in range(NUM_FRAMES)])


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_evaluation_outputs(kind, dataset):
    model = small_model(kind, dataset)
    camera, batch = batch_of(dataset, [2, 0, 3])
    for mode in (True, False):
        outputs = model.train(mode).get_outputs(camera)
        assert list(outputs) == ["rgb"] and outputs["rgb"].shape == (3, HEIGHT, WIDTH, 3)
        assert float(outputs["rgb"].min()) >= 0 and float(outputs["rgb"].max()) <= 1
    losses = model.get_loss_dict(outputs, batch)
    assert list(losses) == ["reconstruction_loss"] and torch.isfinite(losses["reconstruction_loss"])
    metrics = model.get_metrics_dict(outputs, batch)
    expected = psnr(outputs["rgb"].permute(0, 3, 1, 2), batch["image"].permute(0, 3, 1, 2)).mean()
    torch.testing.assert_close(metrics["psnr"], expected)


def test_loss_weight(dataset):
    camera, batch = batch_of(dataset, [1])
    single, double = (small_model("hnerv", dataset, reconstruction_loss_mult=weight) for weight in (1.0, 2.0))
    losses = [m.get_loss_dict(m.train().get_outputs(camera), batch)["reconstruction_loss"] for m in (single, double)]
    torch.testing.assert_close(losses[1], 2 * losses[0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_trained_number_is_optimised(kind, dataset):
    model = small_model(kind, dataset)
    groups = model.get_param_groups()
    assert list(groups) == ["field"]
    trained = {id(p) for p in model.parameters() if p.requires_grad} - {id(model.device_indicator_param)}
    assert {id(p) for p in groups["field"]} == trained
    camera, batch = batch_of(dataset, [0, 1])
    model.train()
    model.get_loss_dict(model.get_outputs(camera), batch)["reconstruction_loss"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in groups["field"])


def test_dataset_camera_shows_the_frame(dataset):
    model = small_model("hnerv-boost", dataset)
    train(model, dataset, 2)
    outputs = model.get_outputs_for_camera(dataset.cameras[2:3])
    assert list(outputs)[:3] == ["rgb", "accumulation", "depth"] and set(outputs) >= {"gt", "error"}
    frame, source = model.decode_frame(2), dataset.frames.batch([2], "cpu")[0]
    assert torch.equal(outputs["rgb"], frame.permute(1, 2, 0))
    assert torch.equal(outputs["gt"], source.permute(1, 2, 0))
    torch.testing.assert_close(outputs["error"][..., 0], (frame - source).abs().mean(0))
    assert outputs["accumulation"].shape == outputs["depth"].shape == outputs["error"].shape == (HEIGHT, WIDTH, 1)


def test_a_camera_without_time_sees_the_first_frame(dataset):
    model = small_model("nerv", dataset)
    camera = copy.deepcopy(dataset.cameras[3:4])
    camera.times = None
    assert torch.equal(model.get_outputs_for_camera(camera)["rgb"], model.decode_frame(0).permute(1, 2, 0))


def test_times_hit_every_frame(dataset):
    """The parser's float32 times come back as the very frame, for every length up to UVG's."""
    model = small_model("nerv", dataset)
    for num_frames in range(1, 601):
        model._num_frames = num_frames
        frames = torch.arange(num_frames)
        times = (frames / max(1, num_frames - 1)).float()[:, None]
        cameras = Cameras(torch.eye(4)[None, :3].expand(num_frames, -1, -1), 1.0, 1.0, 0.5, 0.5, 1, 1, times=times)
        assert torch.equal(model.frame_indices(cameras), frames)


@pytest.mark.parametrize("time, frame", [(-0.5, 0), (0.0, 0), (0.16, 0), (0.17, 1), (0.5, 2), (0.99, 3), (1.7, 3)])
def test_times_between_frames_take_the_nearest(time, frame, dataset):
    model = small_model("nerv", dataset)
    camera = copy.deepcopy(dataset.cameras[0:1])
    camera.times = torch.tensor([[time]])
    assert model.frame_indices(camera).tolist() == [frame]


def test_rays_are_refused(dataset):
    model = small_model("nerv", dataset)
    rays = RayBundle(torch.zeros(5, 3), torch.ones(5, 3), torch.ones(5, 1))
    for call in (model.get_outputs, model.get_outputs_for_camera_ray_bundle):
        with pytest.raises(InputError, match="no rays"):
            call(rays)


@pytest.mark.parametrize("kind", HYBRID)
def test_the_table_alone_decodes_the_clip(kind, dataset):
    """After a checkpoint's preparation the stored embeddings give what encoder and decoder give together."""
    model = small_model(kind, dataset)
    train(model, dataset, 5, kind=kind)
    indices = torch.arange(NUM_FRAMES)
    with torch.no_grad():
        fresh = model.field.encode(dataset.frames.batch(indices, "cpu"))
        assert not torch.allclose(model.embeddings, fresh, atol=1e-5)
        model.prepare_checkpoint()
        torch.testing.assert_close(model.embeddings, fresh, rtol=1e-4, atol=1e-5)
        expected = model.field.decode(indices, fresh)
        torch.testing.assert_close(model.field.decode(indices, model.embeddings), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_opens_without_the_source(kind, dataset, tmp_path):
    model = small_model(kind, dataset)
    train(model, dataset, 3, kind=kind)
    expected = decoded_clip(model)
    outputs = copy.deepcopy(dataset._dataparser_outputs)
    outputs.metadata["clip_options"] = replace(outputs.metadata["clip_options"], source=tmp_path / "gone.mp4")
    gone = VideoDataset(outputs)
    assert not gone.frames.available
    again = small_model(kind, gone, seed=1)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(decoded_clip(again), expected, rtol=0, atol=1e-6)
    assert list(again.get_outputs_for_camera(dataset.cameras[1:2])) == ["rgb", "accumulation", "depth"]


def test_a_checkpoint_holds_the_network_and_nothing_else(dataset):
    model = small_model("hnerv-boost", dataset)
    train(model, dataset, 1)
    model.get_image_metrics_and_images({"rgb": torch.rand(HEIGHT, WIDTH, 3)}, {"image": torch.rand(HEIGHT, WIDTH, 3)})
    names = {name.split(".")[0] for name in model.state_dict()}
    assert names == {"device_indicator_param", "field", "embeddings"}


@pytest.mark.parametrize("kind", KINDS)
def test_viewing_follows_training(kind, dataset):
    """A frame is kept while nothing changes, and decoded anew after the next training step."""
    model = small_model(kind, dataset)
    before = model.eval().decode_frame(1)
    assert model.decode_frame(1) is before
    train(model, dataset, 1, kind=kind)
    after = model.decode_frame(1)
    assert not torch.equal(before, after)
    camera, _ = batch_of(dataset, [1])
    with torch.no_grad():
        current = model.train().get_outputs(camera)["rgb"][0].permute(2, 0, 1)
    torch.testing.assert_close(after, current, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_run_metrics(kind, dataset):
    model = small_model(kind, dataset).eval()
    metrics = model.get_run_metrics()
    assert set(metrics) == {"num_decoder", "num_embeddings", "num_stored", "decode_fps"}
    assert all(type(value) is float for value in metrics.values())
    # 23 x 38 pads to 24 x 40, so the grid is 3 x 5.
    assert metrics["num_embeddings"] == (NUM_FRAMES * 16 * 3 * 5 if kind in HYBRID else 0)
    assert metrics["num_stored"] == metrics["num_decoder"] + metrics["num_embeddings"]
    stored = [p for name, p in model.field.named_parameters() if not name.startswith("encoder.")]
    assert metrics["num_decoder"] == sum(p.numel() for p in stored)
    assert metrics["decode_fps"] > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", ["target_params", "decoder_params"])
def test_budgets_are_met_and_used(kind, budget, dataset):
    """The widest network that fits: one channel more would not."""
    numbers = {"target_params": None, budget: 200_000}
    model = small_model(kind, dataset, width=None, **numbers)
    wider = small_model(kind, dataset, width=model.width + 1)
    key = "num_stored" if budget == "target_params" else "num_decoder"
    assert model.size_report()[key] <= 200_000 < wider.size_report()[key]


@pytest.mark.parametrize("budget, flag", [("target_params", "target-params"), ("decoder_params", "decoder-params")])
def test_impossible_budgets_name_their_flag(budget, flag, dataset):
    with pytest.raises(InputError, match=rf"raise --pipeline\.model\.{flag}"):
        small_model("hnerv-boost", dataset, width=None, **{"target_params": None, budget: 100})


def test_strides_follow_the_frame_unless_given(dataset):
    assert small_model("nerv", dataset).field.layout.strides == (2, 2, 2)
    layout = small_model("nerv", dataset, strides=None).field.layout
    assert (layout.height, layout.width) == (HEIGHT, WIDTH)
    assert layout.grid[0] * layout.grid[1] > 1


def test_image_metrics(dataset):
    model = small_model("hnerv-boost", dataset)
    target = torch.rand(HEIGHT, WIDTH, 3)
    metrics, images = model.get_image_metrics_and_images({"rgb": target + 0.001}, {"image": target})
    assert {"psnr", "psnr_8bit", "ssim", "ms_ssim"} <= set(metrics)
    assert all(type(value) is float for value in metrics.values())
    assert metrics["psnr"] != metrics["psnr_8bit"]
    assert images["img"].shape == (HEIGHT, 3 * WIDTH, 3)


def hide_time(model, kind):
    """Switch off what tells frames apart: the time code, and the content embedding of the hybrid methods."""
    model.field.time_code.zero_()
    if kind in HYBRID:
        model.field.encode = lambda frames: torch.zeros(len(frames), *model.field.embedding_shape)


# Steps, learning rate, and PSNR in dB that must be gained over the best picture that knows no time.
LEARNING = {
    "nerv": (80, 5e-3, 3.0),
    "nerv-boost": (80, 5e-3, 3.0),
    "e-nerv": (120, 2e-3, 2.0),
    "e-nerv-boost": (80, 5e-3, 1.0),
    "hnerv": (80, 5e-3, 1.0),
    "hnerv-boost": (80, 5e-3, 1.5),
}


def time_blind_psnr(dataset):
    """PSNR of the best single picture, the mean frame: no network that cannot tell frames apart does better."""
    clip = dataset.frames.batch(range(NUM_FRAMES), "cpu")
    return float(psnr(clip.mean(0, keepdim=True).expand_as(clip), clip).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_learns_which_frame_is_which(kind, dataset):
    steps, learning_rate, gain = LEARNING[kind]
    model = small_model(kind, dataset, width=16, strides=(2, 2))
    train(model, dataset, steps, learning_rate, kind)
    clip, decoded = dataset.frames.batch(range(NUM_FRAMES), "cpu"), decoded_clip(model)
    quality = torch.stack([psnr(decoded[k].expand_as(clip), clip) for k in range(NUM_FRAMES)])
    assert quality.argmax(dim=1).tolist() == list(range(NUM_FRAMES))
    assert float(quality.diag().mean()) > time_blind_psnr(dataset) + gain


@pytest.mark.parametrize("kind", KINDS)
def test_learns_one_picture_when_frames_look_alike_to_it(kind, dataset):
    """The learning test fails without the method's idea: blind to time and content, every frame is the same."""
    model = small_model(kind, dataset, width=16, strides=(2, 2))
    hide_time(model, kind)
    train(model, dataset, 5, kind=kind)
    decoded = decoded_clip(model)
    assert torch.equal(decoded[0].expand_as(decoded), decoded)
    clip = dataset.frames.batch(range(NUM_FRAMES), "cpu")
    assert float(psnr(decoded, clip).mean()) < time_blind_psnr(dataset) + 0.1


def test_two_runs_give_the_same_numbers(dataset):
    runs = []
    for _ in range(2):
        model = small_model("hnerv-boost", dataset, seed=7)
        runs.append((train(model, dataset, 4), decoded_clip(model)))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
