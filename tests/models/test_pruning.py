"""A run without its smallest weights: they stay at zero while the others learn, and the file is smaller."""

import pytest
import torch

from dataparsers.video_frames import VideoDataParserConfig
from nerfstudio_ext.data.video import VideoDataset
from nerfstudio_ext.models.stored_video import StoredVideo, encode_model
from nerfstudio_ext.video.pruning import PruningConfig
from nerfstudio_ext.video.quantization import CompressionConfig
from tests.models.test_boosting_nerv import HEIGHT, NUM_FRAMES, WIDTH, small_model, train


@pytest.fixture(scope="module")
def dataset():
    parser = VideoDataParserConfig(procedural_frames=12 * NUM_FRAMES, frame_step=12, procedural_size=(WIDTH, HEIGHT))
    return VideoDataset(parser.setup().get_dataparser_outputs("train"))


def zeros(model):
    weights = [tensor for tensor in model.field.decoder_parameters().values() if tensor.dim() > 1]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@pytest.mark.parametrize("kind", ["nerv", "hnerv-boost"])
def test_pruned_weights_stay_away(kind, dataset):
    first = small_model(kind, dataset)
    train(first, dataset, 3, kind=kind)
    first.prepare_checkpoint()
    model = small_model(kind, dataset, seed=1, pruning=PruningConfig(0.4))
    model.start_pruning(first.state_dict())
    assert zeros(model) == pytest.approx(0.6, abs=0.01)
    before = model.field.head.weight.detach().clone()
    train(model, dataset, 3, kind=kind)
    model.prepare_checkpoint()
    assert zeros(model) == pytest.approx(0.6, abs=0.01) and not torch.equal(before, model.field.head.weight)
    again = small_model(kind, dataset, seed=2, pruning=PruningConfig(0.4))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.pruner.kept, model.pruner.kept)

    compressed = small_model(kind, dataset, pruning=PruningConfig(0.4), compression=CompressionConfig())
    compressed.start_compression(model.state_dict())
    assert float((compressed.quantized_decoder().codes == 0).float().mean()) > 0.5


@pytest.mark.extra("constriction")
def test_the_file_is_smaller(dataset):
    first = small_model("nerv", dataset, width=24)
    train(first, dataset, 3, kind="nerv")
    whole = StoredVideo(encode_model(first, "a-preset", 8))
    model = small_model("nerv", dataset, width=24, pruning=PruningConfig(0.3))
    model.start_pruning(first.state_dict())
    model.prepare_eval()
    video = StoredVideo(encode_model(model, "a-preset", 8))
    assert video.payload_bytes < 0.55 * whole.payload_bytes
    assert float((video.decode(1) - model.decode_frame(1)).abs().mean()) < 0.02
