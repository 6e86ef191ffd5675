"""The second stage of the six video models: it starts from the first, shows its rate, and lowers it."""

import pytest
import torch
from torch.func import functional_call

from dataparsers.video_frames import VideoDataParserConfig
from nerfstudio_ext.data.video import VideoDataset
from nerfstudio_ext.video.quantization import CompressionConfig
from tests.models.test_boosting_nerv import HEIGHT, HYBRID, NUM_FRAMES, WIDTH, batch_of, small_model, train
from tests.reference.plain_nerv import KINDS


@pytest.fixture(scope="module")
def dataset():
    """Four frames of the procedural clip, far apart in time."""
    parser = VideoDataParserConfig(procedural_frames=12 * NUM_FRAMES, frame_step=12, procedural_size=(WIDTH, HEIGHT))
    return VideoDataset(parser.setup().get_dataparser_outputs("train"))


def compressed_model(kind, dataset, **settings):
    """A second stage that starts from a first stage of a few steps."""
    first = small_model(kind, dataset)
    train(first, dataset, 3, kind=kind)
    first.prepare_checkpoint()
    model = small_model(kind, dataset, seed=1, compression=CompressionConfig(**settings))
    model.start_compression(first.state_dict())
    return first, model


@pytest.mark.parametrize("kind", KINDS)
def test_starts_where_the_first_stage_ended(kind, dataset):
    first, model = compressed_model(kind, dataset)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    for k in range(NUM_FRAMES):
        difference = (model.eval().decode_frame(k) - first.eval().decode_frame(k)).abs()
        assert float(difference.mean()) < 0.02  # eight bits cost little


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_takes_part(kind, dataset):
    _, model = compressed_model(kind, dataset)
    groups = model.get_param_groups()
    assert list(groups) == ["field", "quantizer"]
    camera, batch = batch_of(dataset, [1])
    outputs = model.train().get_outputs(camera)
    metrics = model.get_metrics_dict(outputs, batch)
    losses = model.get_loss_dict(outputs, batch, metrics)
    assert set(losses) == {"reconstruction_loss", "rate_loss"} and float(losses["rate_loss"]) > 0
    assert float(metrics["bpp"]) == pytest.approx(float(outputs["bits"]) / model._num_pixels)
    sum(losses.values()).backward()
    trained = [p for group in groups.values() for p in group]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)


def test_the_rate_stops_counting_at_the_target(dataset):
    camera, batch = batch_of(dataset, [1])
    _, model = compressed_model("hnerv-boost", dataset, bits=16.0)
    losses = model.get_loss_dict(model.train().get_outputs(camera), batch)
    assert float(losses["rate_loss"]) == 0


@pytest.mark.parametrize("kind", ["nerv-boost", "hnerv-boost"])
def test_training_lowers_the_rate(kind, dataset):
    _, model = compressed_model(kind, dataset, rate_loss_mult=1.0)
    before = model.get_run_metrics()["bpp"]
    scales = torch.optim.Adam(model.get_param_groups()["quantizer"], lr=0.05)
    model.train()
    for step in range(30):
        camera, batch = batch_of(dataset, [step % NUM_FRAMES])
        scales.zero_grad()
        sum(model.get_loss_dict(model.get_outputs(camera), batch).values()).backward()
        scales.step()
    model.prepare_eval()
    assert model.get_run_metrics()["bpp"] < 0.8 * before


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_seen_is_what_is_stored(kind, dataset):
    """Integer codes and scales alone give the frames that viewer and evaluation show."""
    _, model = compressed_model(kind, dataset)
    model.eval().prepare_eval()
    stored = model.quantized_decoder()
    tensors = model.field.decoder_parameters()
    parts = stored.codes.round().split([tensor.numel() for tensor in tensors.values()])
    scales = model.quantizer.decoder.scales().tolist()
    weights = {n: (p * s).view(tensors[n].shape) for n, p, s in zip(tensors, parts, scales)}
    embeddings = model.quantizer.stored_embeddings(model.embeddings)[0] if kind in HYBRID else None
    with torch.no_grad():
        frames = functional_call(model.field, weights, (torch.arange(NUM_FRAMES), embeddings))
    decoded = torch.stack([model.decode_frame(k) for k in range(NUM_FRAMES)])
    torch.testing.assert_close(decoded, frames, rtol=0, atol=1e-4)
