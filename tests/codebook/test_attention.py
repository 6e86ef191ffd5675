import math

import pytest
import torch

from nerfstudio_ext.codebook.attention import Attention, CodebookAttention, CoordinateAttention, attention_entropy


@pytest.mark.parametrize("fold", [False, True])
def test_attention_against_torchs_own(fold):
    torch.manual_seed(1)
    module = Attention(14, 10, heads=3, head_width=4, fold=fold)
    queries, context = torch.randn(7, 14), torch.randn(9, 10)
    out = module(queries, module.keys_values(context))
    q = module.to_query(module.norm_query(queries)).view(7, 3, 4).transpose(0, 1)
    k, v = (x.view(9, 3, 4).transpose(0, 1) for x in module.to_key_value(module.norm_context(context)).chunk(2, -1))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(7, 12)
    assert torch.allclose(out, module.to_out(wanted), atol=1e-6)
    weights = torch.softmax(q @ k.transpose(1, 2) / 2, dim=-1)
    assert torch.allclose(module.weights(queries, module.keys_values(context)), weights, atol=1e-6)


def test_one_query_against_a_loop():
    module = Attention(4, 4, heads=1, head_width=4)
    query, context = torch.randn(1, 4), torch.randn(5, 4)
    q = module.to_query(module.norm_query(query))[0]
    keys, values = module.to_key_value(module.norm_context(context)).chunk(2, dim=-1)
    scores = [float(q @ key) / math.sqrt(4) for key in keys]
    total = sum(math.exp(score) for score in scores)
    mixed = sum(math.exp(score) / total * value for score, value in zip(scores, values))
    assert torch.allclose(module(query, module.keys_values(context))[0], module.to_out(mixed), atol=1e-5)


def test_size_is_the_papers():
    """1,121,792 numbers per network at codebook width 256 (method card section 2.3)."""
    module = CodebookAttention(256, 256, 128, heads=4, head_width=32, depth=3)
    assert sum(p.numel() for p in module.parameters()) == 1_121_792


@pytest.mark.parametrize("head_width", [4, 2])
def test_second_derivatives(head_width):
    module = CoordinateAttention(6, 8, heads=2, head_width=head_width, blocks=2, activation=torch.nn.GELU()).double()
    prototypes = torch.randn(5, 8, dtype=torch.float64)
    points = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def read(points):
        return module(points, module.keys_values(prototypes))

    assert torch.autograd.gradcheck(read, points)
    assert torch.autograd.gradgradcheck(read, points)


def test_points_do_not_see_one_another():
    module = CoordinateAttention(6, 8, heads=2, head_width=4, blocks=1, activation=torch.nn.GELU())
    rows = module.keys_values(torch.randn(5, 8))
    points = torch.randn(10, 6)
    assert torch.allclose(module(points, rows)[3], module(points[3:4], rows)[0], atol=1e-6)


def test_prototypes_depend_on_the_codebook():
    module = CodebookAttention(16, 8, 12, heads=2, head_width=6, depth=1)
    codebook = torch.randn(40, 16)
    assert module(codebook).shape == (8, 12)
    assert not torch.allclose(module(codebook), module(codebook.flip(1)))
    assert torch.allclose(module(codebook), module(codebook.flip(0)), atol=1e-5), "the order of codes says nothing"


@pytest.mark.parametrize(("weights", "entropy"), [([1.0, 0, 0, 0], 0.0), ([0.25] * 4, 1.0)])
def test_entropy_runs_from_one_row_to_all(weights, entropy):
    assert attention_entropy(torch.tensor([[weights]]))[0, 0] == pytest.approx(entropy, abs=1e-5)
