import pytest
import torch

from nerfstudio_ext.surface.sdf_network import SdfNetwork, SharpSoftplus, encode_frequencies, encoded_dims


def test_encoding_is_raw_first_and_without_pi():
    x = torch.tensor([[0.3, -0.7, 1.1]])
    encoded = encode_frequencies(x, 2)
    assert encoded.shape[-1] == encoded_dims(3, 2) == 15
    expected = torch.cat([x, x.sin(), x.cos(), (2 * x).sin(), (2 * x).cos()], dim=-1)
    assert torch.allclose(encoded, expected)


def test_softplus_is_torchs_and_twice_differentiable():
    x = torch.linspace(-2, 2, 401)
    assert torch.allclose(SharpSoftplus()(x), torch.nn.Softplus(beta=100)(x), atol=2e-8)
    x = (torch.randn(30, dtype=torch.float64) * 0.05).requires_grad_()
    assert torch.autograd.gradcheck(SharpSoftplus(), x)
    assert torch.autograd.gradgradcheck(SharpSoftplus(), x)


@pytest.mark.parametrize(("layers", "skip", "extra"), [(4, None, 0), (4, None, 39), (8, 4, 0)])
def test_starts_as_a_sphere(layers, skip, extra):
    network = SdfNetwork(39 + extra, 256, layers, 257, radius=0.6, skip=skip)
    x = torch.nn.functional.normalize(torch.randn(2000, 3), dim=-1) * torch.rand(2000, 1) * 1.5
    x.requires_grad_()
    h = torch.cat([encode_frequencies(x, 6), torch.randn(2000, extra)], dim=-1)
    sdf = network(h)[:, 0]
    (gradient,) = torch.autograd.grad(sdf.sum(), x)
    wanted = x.norm(dim=-1) - 0.6
    assert (sdf - wanted).abs().mean() < 0.2
    assert ((sdf > 0) == (wanted > 0))[wanted.abs() > 0.4].float().mean() > 0.98
    assert 0.7 < float(gradient.norm(dim=-1).mean()) < 1.4


@pytest.mark.parametrize(("layers", "skip"), [(4, None), (8, 4)])
def test_the_first_sphere_has_its_radius(layers, skip):
    """Networks differ by some hundredths; where several change their signs is the radius on average."""
    directions = torch.nn.functional.normalize(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    radii = torch.linspace(0, 1.5, 76)
    found = []
    for seed in range(8):
        torch.manual_seed(seed)
        network = SdfNetwork(39, 256, layers, 257, radius=0.6, skip=skip)
        with torch.no_grad():
            inside = network(encode_frequencies(radii[:, None, None] * directions, 6))[..., 0] < 0
        found.append(float(radii[inside.sum(0)].mean()))
    assert sum(found) / 8 == pytest.approx(0.6, abs=0.06), found


def test_impossible_skip_is_refused():
    with pytest.raises(ValueError, match="skip"):
        SdfNetwork(39, 32, 4, 1, 0.6, skip=2)
