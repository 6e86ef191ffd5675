"""Stored numbers: the vectorised quantiser against one tensor at a time, its start, and what it learns from."""

import pytest
import torch

from nerfstudio_ext.video.quantization import VideoQuantizer, even_step
from nerfstudio_ext.video.rate import SMALLEST_STD, gaussian_bits


@pytest.fixture
def tensors():
    return {"a.weight": torch.randn(6, 4, 3, 3), "a.bias": torch.randn(6), "b.weight": 0.01 * torch.randn(5, 7)}


@pytest.fixture
def quantizer(tensors):
    quantizer = VideoQuantizer(tensors, has_embeddings=True)
    quantizer.start(tensors, torch.randn(3, 2, 4, 5) + 7)
    return quantizer


def test_scales_start_at_a_share_of_the_range(tensors, quantizer):
    expected = torch.tensor([(float(t.max()) - float(t.min())) / 255 for t in tensors.values()])
    torch.testing.assert_close(quantizer.decoder.scales().detach(), expected)


@pytest.mark.parametrize("values", [[0.0, 0.0], [3.0, 3.0], [-2.0]])
def test_constant_tensors_have_a_scale(values):
    assert even_step(torch.tensor(values)) > 0


def test_each_tensor_is_quantised_by_itself(tensors, quantizer):
    stored = quantizer.stored_decoder(tensors)
    bits = 0.0
    parts = stored.codes.split([tensor.numel() for tensor in tensors.values()])
    for (name, tensor), scale, part in zip(tensors.items(), quantizer.decoder.scales().tolist(), parts):
        codes = torch.round(tensor / scale)
        torch.testing.assert_close(part.view(tensor.shape), codes)
        torch.testing.assert_close(stored.weights[name], codes * scale)
        assert stored.weights[name].shape == tensor.shape
        assert float((stored.weights[name] - tensor).abs().max()) <= 0.5001 * scale
        std = codes.std(correction=0).clamp_min(SMALLEST_STD)
        bits += float(gaussian_bits(codes, codes.mean(), std).sum())
    assert float(stored.bits) == pytest.approx(bits, rel=1e-4)


def test_embeddings_are_quantised_together(quantizer):
    embeddings = torch.randn(3, 2, 4, 5) + 7
    values, codes = quantizer.stored_embeddings(embeddings)
    scale, offset = quantizer.embeddings.log_scale.exp(), quantizer.embeddings.offset
    torch.testing.assert_close(values, (codes * scale + offset).detach())
    assert float((values - embeddings).abs().max()) <= 0.5001 * float(scale)


def drifting(share, frames=12):
    """Embeddings of which each frame keeps a share of the one before, with the same spread whatever the share."""
    pictures = [torch.randn(1, 2, 16, 16)]
    for _ in range(frames - 1):
        pictures.append(share * pictures[-1] + (1 - share**2) ** 0.5 * torch.randn(1, 2, 16, 16))
    return torch.cat(pictures)


def stored_bits(quantizer, tensors, embeddings):
    whole = quantizer.stored_numbers(quantizer.stored_decoder(tensors), embeddings)
    return whole.bits() - whole._replace(embeddings=None).bits()


def test_embeddings_cost_what_is_new_in_them(tensors, quantizer):
    costs = []
    for share in (0.95, 0.0):
        embeddings = drifting(share)
        quantizer.embeddings.start(embeddings)
        costs.append(stored_bits(quantizer, tensors, embeddings) / embeddings.numel())
    # sqrt(1 - 0.95^2) of the spread is new: 1.68 bits less, in all frames but the first.
    assert costs[1] - costs[0] == pytest.approx(11 / 12 * 1.68, abs=0.15)


def test_training_counts_each_frame_by_itself(tensors, quantizer):
    embeddings = drifting(0.0) * torch.linspace(0.1, 3.0, 12).view(12, 1, 1, 1)
    quantizer.embeddings.start(embeddings)
    bits = quantizer.embeddings.expected_bits(embeddings)
    assert bits.shape == (12,) and (bits[1:] > bits[:-1]).all()
    assert float(bits.sum().detach()) == pytest.approx(stored_bits(quantizer, tensors, embeddings), rel=0.03)


def test_training_is_noisy_and_storing_is_not(tensors, quantizer):
    quantizer.train()
    assert float(quantizer.decoder(tensors).bits) != float(quantizer.decoder(tensors).bits)
    assert float(quantizer.stored_decoder(tensors).bits) == float(quantizer.stored_decoder(tensors).bits)
    assert quantizer.decoder.training


def test_rate_and_values_reach_weights_and_scales(tensors, quantizer):
    tensors = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    stored = quantizer.train().decoder(tensors)
    (stored.bits + sum(weight.square().sum() for weight in stored.weights.values())).backward()
    assert all(t.grad is not None and torch.isfinite(t.grad).all() for t in tensors.values())
    grad = quantizer.decoder.log_scale.grad
    assert torch.isfinite(grad).all() and (grad != 0).all()


def test_larger_scales_cost_fewer_bits(tensors, quantizer):
    before = float(quantizer.stored_decoder(tensors).bits)
    with torch.no_grad():
        quantizer.decoder.log_scale += 1
    assert float(quantizer.stored_decoder(tensors).bits) < 0.9 * before
