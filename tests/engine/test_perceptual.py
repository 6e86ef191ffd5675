import pytest
import torch

from nerfstudio_ext.engine import perceptual
from nerfstudio_ext.engine.perceptual import VggDistance


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file of random weights where torchvision's would be."""
    from torchvision.models import vgg19

    torch.manual_seed(0)
    layers = vgg19(weights=None).features[:21]
    path = tmp_path / "vgg.pth"
    torch.save({f"features.{key}": value for key, value in layers.state_dict().items()}, path)
    monkeypatch.setattr(perceptual, "vgg_weights_path", lambda: path)
    return layers


def test_absent_weights_are_never_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(perceptual, "vgg_weights_path", lambda: tmp_path / "none.pth")
    assert not VggDistance().available


def test_distance_is_the_sum_over_the_taps(weights):
    torch.manual_seed(1)
    one, other = torch.rand(2, 1, 3, 32, 32)
    distance = VggDistance()
    assert distance.available and float(distance(one, one)) == 0
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected, pair = 0.0, [(x - mean[:, None, None]) / std[:, None, None] for x in (one, other)]
    share = {1: 1 / 16, 6: 1 / 8, 11: 1 / 4, 20: 1.0}
    for number, layer in enumerate(weights):
        pair = [layer(x.clone()) for x in pair]
        expected += share.get(number, 0) * float((pair[0] - pair[1]).abs().mean())
    assert float(distance(one, other)) == pytest.approx(expected, rel=1e-4)


def test_gradient_goes_to_the_prediction_alone(weights):
    one, other = torch.rand(1, 3, 16, 16, requires_grad=True), torch.rand(1, 3, 16, 16, requires_grad=True)
    VggDistance()(one, other).backward()
    assert float(one.grad.abs().max()) > 0 and other.grad is None
