import copy

import pytest
import torch

from nerfstudio_ext.codebook.table import DEFAULT_CODEBOOK, load_codebook
from nerfstudio_ext.fields.coco_inr_field import CoCoINRFieldConfig

SMALL = dict(
    num_prototypes=6,
    prototype_width=8,
    heads=2,
    head_width=4,
    depth=1,
    layers=2,
    width=16,
    position_octaves=2,
    direction_octaves=1,
    background_octaves=2,
)
CODEBOOK = torch.randn(30, 12, generator=torch.Generator().manual_seed(1))
MODES = {"codebook": dict(codebook=CODEBOOK), "free": {}, "none": dict(attention=False)}


def build(mode="codebook", seed=0, **changes):
    torch.manual_seed(seed)
    return CoCoINRFieldConfig(**{**SMALL, **changes}).setup(**copy.deepcopy(MODES[mode]))


def everything(field, context):
    """All outputs of the four networks at a few points."""
    generator = torch.Generator().manual_seed(5)
    dtype = next(field.parameters()).dtype
    x = torch.rand(9, 3, generator=generator).to(dtype) * 2 - 1
    directions = torch.nn.functional.normalize(torch.rand(9, 3, generator=generator).to(dtype), dim=-1)
    beyond = torch.rand(9, 4, generator=generator).to(dtype)
    sdf, feature, gradient = field.sdf_gradient(x, context)
    colour = field.colour(x, directions, gradient, feature, context)
    density, background = field.background(beyond, directions, context)
    return torch.cat([sdf[:, None], gradient, colour, density[:, None], background], dim=-1)


def test_size_is_the_papers():
    """Method card section 2.5, less the modules that the published code owns and never calls."""
    field = CoCoINRFieldConfig().setup(codebook=torch.randn(40, 256))
    sizes = {name: sum(p.numel() for p in field.prototypes[name].parameters()) for name in field.prototypes}
    assert set(sizes.values()) == {1_121_792}
    # The unused attention of each coordinate module: query norm, context norm, and its three projections.
    unused = {q: 2 * q + 256 + 128 * q + 128 * 256 + 128 * q + q for q in (39, 289, 84, 283)}
    wanted = {"sdf": 1_496_170 - unused[39], "colour": 1_614_485 - unused[289]}
    heads = {"sdf": field.sdf_network, "colour": field.colour_network}
    for name, total in wanted.items():
        modules = [field.prototypes[name], field.readers[name], heads[name]]
        assert sum(p.numel() for module in modules for p in module.parameters()) == total, name


@pytest.mark.parametrize("mode", MODES)
def test_shapes_and_ranges(mode):
    field = build(mode)
    out = everything(field, field.context())
    assert out.shape == (9, 11) and torch.isfinite(out).all()
    assert (out[:, 4:] >= 0).all() and (out[:, 4:7] <= 1).all()


@pytest.mark.parametrize("mode", MODES)
def test_starts_as_a_sphere_whatever_is_attended_to(mode):
    field = build(mode, width=256, layers=4)
    x = torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    radius = torch.rand(500, 1) * 1.4
    sdf = field.sdf(x * radius, field.context())
    wanted = radius[:, 0] - 0.6
    assert (sdf - wanted).abs().mean() < 0.2
    assert ((sdf > 0) == (wanted > 0))[wanted.abs() > 0.4].float().mean() > 0.98
    radii, found = torch.linspace(0, 1.5, 76), []
    for seed in range(8):
        field = build(mode, seed, width=256, layers=4)
        with torch.no_grad():
            along = field.sdf((radii[:, None, None] * x[:60]).flatten(0, 1), field.context()).view(76, 60)
        found.append(float(radii[(along < 0).sum(0)].mean()))
    assert sum(found) / 8 == pytest.approx(0.6, abs=0.06), found


@pytest.mark.parametrize("mode", MODES)
def test_grids_leave_the_initial_sphere_and_learn_from_the_first_step(mode):
    x = torch.rand(200, 3) * 2 - 1
    field = build(mode, grid_sizes=(3, 5), width=256, layers=4)
    sdf = field.sdf(x, field.context())
    assert (sdf - (x.norm(dim=-1) - 0.6)).abs().mean() < 0.2
    field.sdf_gradient(x, field.context())[2].norm(dim=-1).sub(1).square().mean().backward()
    assert field.grid.table.grad.abs().sum(1).gt(0).float().mean() > 0.9
    assert field.sdf_network.linears[0].parametrizations.weight.original1.grad[:, 15:23].abs().max() > 0


def test_grids_hold_detail_that_the_encoding_cannot():
    """A bumpy sphere, from distances alone."""
    errors = {}
    for grid_sizes in ((), (16, 32)):
        field = build("none", grid_sizes=grid_sizes, width=32)
        rates = [{"params": [p for name, p in field.named_parameters() if name != "grid.table"]}]
        rates += [{"params": [field.grid.table], "lr": 3e-2}] if grid_sizes else []
        optimizer = torch.optim.Adam(rates, lr=3e-3)
        for _ in range(200):
            x = torch.nn.functional.normalize(torch.randn(1000, 3), dim=-1) * (0.4 + 0.4 * torch.rand(1000, 1))
            wanted = x.norm(dim=-1) - 0.6 + 0.05 * torch.sin(12 * x).prod(-1)
            loss = (field.sdf(x, field.context()) - wanted).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        errors[grid_sizes] = float(loss)
    assert errors[(16, 32)] < 0.6 * errors[()], errors


def test_the_first_distance_knows_nothing_of_the_codebook():
    field, x = build(), torch.rand(50, 3) * 2 - 1
    before, feature = field.sdf_and_feature(x, field.context())
    field.codebook = CODEBOOK.flip(1) * 3
    after, other = field.sdf_and_feature(x, field.context())
    assert torch.equal(before, after) and torch.equal(feature, other)
    keys, again = (f.context()["sdf"][0][0] for f in (build(), field))
    assert not torch.allclose(keys, again), "the prototypes do"


@pytest.mark.parametrize("grid_sizes", [(), (3, 5)])
def test_gradient_against_differences(grid_sizes):
    field = build(grid_sizes=grid_sizes).double()
    if grid_sizes:
        torch.nn.init.normal_(field.grid.table)
    context = field.context()
    x = torch.rand(5, 3, dtype=torch.float64)
    gradient = field.sdf_gradient(x, context)[2]
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 1e-6
        slope = (field.sdf(x + step, context) - field.sdf(x - step, context)) / 2e-6
        assert torch.allclose(gradient[:, axis], slope, atol=1e-6)


def test_gradient_is_there_without_recording():
    field = build().eval()
    x = torch.rand(5, 3)
    with torch.no_grad():
        sdf, feature, gradient = field.sdf_gradient(x, field.context())
    assert not (sdf.requires_grad or feature.requires_grad or gradient.requires_grad)
    assert torch.allclose(gradient, field.sdf_gradient(x, field.context())[2], atol=1e-6)


def test_one_context_is_as_good_as_many():
    """Claim 8: prototypes once per step give the outputs and gradients of prototypes before every evaluation."""
    field = build().double()

    def gradients(loss):
        return torch.autograd.grad(loss, [p for p in field.parameters()])

    context = field.context()
    once = everything(field, context) * field.sdf(torch.ones(1, 3, dtype=torch.float64), context)
    often = everything(field, field.context()) * field.sdf(torch.ones(1, 3, dtype=torch.float64), field.context())
    assert torch.allclose(once, often, atol=1e-12)
    for a, b in zip(gradients(once.square().sum()), gradients(often.square().sum())):
        assert torch.allclose(a, b, atol=1e-10)


def test_context_is_kept_until_weights_change():
    field = build().eval()
    with torch.no_grad():
        first = field.context()
        assert field.context() is first
        other = build()
        for parameter in other.parameters():
            parameter.add_(0.01)
        field.load_state_dict(other.state_dict())
        assert field.context() is not first
        second = field.context()
        field.train()
        field.eval()
        assert field.context() is not second


def test_nested_load_forgets_the_context():
    """Models load their field as a part of themselves."""
    outer = torch.nn.ModuleDict({"field": build()}).eval()
    with torch.no_grad():
        first = outer["field"].context()
        outer.load_state_dict(outer.state_dict())
        assert outer["field"].context() is not first


def test_another_precision_forgets_the_context():
    """Models are moved as a whole, their field with them."""
    outer = torch.nn.ModuleDict({"field": build()}).eval()
    with torch.no_grad():
        single = everything(outer["field"], outer["field"].context())
        outer.double()
        double = everything(outer["field"], outer["field"].context())
        assert double.dtype == torch.float64 and torch.allclose(double.float(), single, atol=1e-4)
        again = everything(outer.to(torch.float32)["field"], outer["field"].context())
    assert again.dtype == torch.float32


@pytest.mark.parametrize(("mode", "grid_sizes"), [("codebook", ()), ("free", ()), ("codebook", (4,))])
def test_baked_networks_give_the_same(mode, grid_sizes):
    field = build(mode, grid_sizes=grid_sizes).double().eval()
    before = everything(field, field.context())
    size = sum(p.numel() for p in field.parameters() if p.requires_grad)
    field.bake()
    assert torch.allclose(everything(field, field.context()), before, atol=1e-12)
    assert field.codebook is None
    assert sum(p.numel() for p in field.parameters() if p.requires_grad) < size


def test_codebook_comes_with_the_checkpoint():
    trained = build()
    opened = CoCoINRFieldConfig(**SMALL).setup(codebook=torch.empty(0, 1))
    opened.load_state_dict(trained.state_dict())
    assert torch.equal(opened.codebook, CODEBOOK)
    assert torch.equal(everything(opened, opened.context()), everything(trained, trained.context()))
    other = CoCoINRFieldConfig(**SMALL).setup(codebook=torch.randn(30, 5))
    with pytest.raises(RuntimeError, match="codebook"):
        other.load_state_dict(trained.state_dict())


def test_codebook_is_stored_once_and_never_trained():
    field = build()
    tables = [key for key, value in field.state_dict().items() if value.shape == CODEBOOK.shape]
    assert tables == ["codebook"]
    assert not any(p.shape == CODEBOOK.shape for p in field.parameters())


def test_every_network_reads_the_codebook():
    """Switching the codebook changes all outputs once training has woken the attention columns."""
    field = build().eval()
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        before = everything(field, field.context())
        field.codebook.copy_(CODEBOOK.flip(1))
        field.train()
        field.eval()
        after = everything(field, field.context())
    assert ((before - after).abs().amax(0) > 1e-6).all()


def test_maps_of_the_attention():
    field = build()
    entropy, colours = field.prototype_maps(torch.rand(7, 3))
    assert entropy.shape == (7, 1) and (entropy >= 0).all() and (entropy <= 1.0001).all()
    assert colours.shape == (7, 3) and (colours >= 0).all() and (colours <= 1).all()


def unexplained(attention, read=True):
    """Variance of a many-coloured pattern on the initial sphere that the colour network leaves after 120 steps.

    The distance is not trained, so that its feature, four numbers wide, cannot learn the pattern in the colour's place.

    Args:
        attention: Points read prototypes of the default codebook.
        read: What they read is not zero.
    """
    torch.manual_seed(0)
    sizes = dict(num_prototypes=64, prototype_width=32, heads=4, head_width=16, layers=1, width=4, direction_octaves=0)
    config = CoCoINRFieldConfig(**{**SMALL, **sizes})
    field = config.setup(codebook=load_codebook(DEFAULT_CODEBOOK), attention=attention)
    outwards = torch.nn.functional.normalize(torch.randn(600, 3), dim=-1)
    x = config.initial_radius * outwards
    wanted = 0.5 + 0.4 * torch.sin(5 * outwards) * torch.cos(5 * outwards.roll(-1, 1))
    with torch.no_grad():
        _, feature, gradient = field.sdf_gradient(x, field.context())
    modules = [field.colour_network, *([field.readers["colour"], field.prototypes["colour"]] if attention else [])]
    optimizer = torch.optim.Adam([p for module in modules for p in module.parameters()], lr=1e-2)
    colour = wanted
    for _ in range(120):
        context = field.context()
        if not read:
            context = {name: [(keys, 0 * values) for keys, values in rows] for name, rows in context.items()}
        colour = field.colour(x, -outwards, gradient, feature, context)
        optimizer.zero_grad()
        (colour - wanted).abs().mean().backward()
        optimizer.step()
    return float((colour - wanted).square().mean() / wanted.var(0).mean())


def test_one_layer_of_colour_learns_what_prototypes_tell_it():
    """The paper's colour head is one layer, so that what is not read cannot be drawn; the feed-forward step after
    reading alone does not do either."""
    assert unexplained(attention=True) < 0.3
    assert unexplained(attention=True, read=False) > 0.5
    assert unexplained(attention=False) > 0.8
