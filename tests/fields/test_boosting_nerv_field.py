"""The six networks against their plain twins, and against every published size."""

import copy
from dataclasses import replace

import pytest
import torch

from method_configs import boosting_nerv as presets
from nerfstudio_ext.fields.boosting_nerv_field import BoostingNeRVField
from nerfstudio_ext.video.sizing import FrameLayout
from tests.reference.plain_nerv import KINDS, PlainNetwork

FIELDS = {
    "nerv": presets.nerv_field,
    "nerv-boost": presets.nerv_boost_field,
    "e-nerv": presets.e_nerv_field,
    "e-nerv-boost": presets.e_nerv_boost_field,
    "hnerv": presets.hnerv_field,
    "hnerv-boost": presets.hnerv_boost_field,
}
TIME_ONLY = [kind for kind in KINDS if not kind.startswith("hnerv")]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Networks as small as these only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Small stems for quick tests, in the field's words and in the twin's.
SMALL_FIELD = dict(
    stem_hidden=20, token_width=16, lower_width=6, condition_hidden=12, condition_width=10, encoder_width=8
)
SMALL_TWIN = dict(stem_hidden=20, token_width=16, lower_width=6, encoder_width=8, strides=(3, 2, 2))
HEIGHT, WIDTH, NUM_FRAMES, STRIDES = 19, 34, 5, (3, 2, 2)


def small_field(kind, f=14, **changes):
    config = replace(FIELDS[kind], **{**SMALL_FIELD, **changes})
    return config.setup(layout=FrameLayout(HEIGHT, WIDTH, STRIDES), num_frames=NUM_FRAMES, width=f)


def twin_order(field):
    """The field's parameters in the order in which the twin declares them."""
    modules = [] if field.condition is None else [field.condition]
    if field.encoder is not None:
        for patchify, block in zip(field.encoder.patchify, field.encoder.blocks):
            modules += [patchify, block]
    modules += [field.stem, *field.blocks, field.head]
    parameters = [p for module in modules for p in module.parameters()]
    assert len(parameters) == len(list(field.parameters()))
    return parameters


def pair(kind, f=14):
    """Field and twin with the same weights, in float64; none of them left at zero or one."""
    torch.manual_seed(1)
    field = small_field(kind, f).double()
    condition = None if FIELDS[kind].modulation == "none" else (12, 10)
    settings = {**SMALL_TWIN, "condition": condition}
    twin = PlainNetwork(kind, HEIGHT, WIDTH, NUM_FRAMES, f, **settings).double()
    with torch.no_grad():
        for p, q in zip(twin_order(field), twin.parameters(), strict=True):
            p.add_(0.1 * torch.randn_like(p))
            assert p.squeeze().shape == q.squeeze().shape
            q.copy_(p.view_as(q))
    return field, twin


def decode(network, indices, frames):
    """Encode where the network can, then decode."""
    return network.decode(indices, None if network.encoder is None else network.encode(frames))


@pytest.mark.parametrize("kind, f", [*((kind, 14) for kind in KINDS), ("e-nerv", 16), ("hnerv-boost", 17)])
@pytest.mark.parametrize("indices", [[3], [3, 1]], ids=["frame", "batch"])
def test_outputs_and_gradients_equal_the_plain_twin(kind, f, indices):
    """The field runs with channels innermost, as the model runs it; the twin in torch's default layout."""
    field, twin = pair(kind, f)
    field = field.to(memory_format=torch.channels_last)
    frames = torch.rand(len(indices), 3, HEIGHT, WIDTH, dtype=torch.float64)
    weight = torch.randn(frames.shape, dtype=torch.float64)
    indices = torch.tensor(indices)
    ours = decode(field, indices, frames.contiguous(memory_format=torch.channels_last))
    theirs = decode(twin, indices, frames)
    assert ours.shape == frames.shape
    assert ours.std() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    for p, q in zip(twin_order(field), twin.parameters(), strict=True):
        assert q.grad.abs().max() > 0
        atol = 1e-5 * float(q.grad.abs().max()) + 1e-9
        torch.testing.assert_close(p.grad.view_as(q), q.grad, rtol=1e-5, atol=atol)


def test_the_comparison_sees_a_wrong_weight():
    """A single scale head that is off by a tenth shows."""
    field, twin = pair("hnerv-boost")
    with torch.no_grad():
        field.blocks[0].tat.affine_out.scale[2].bias.add_(0.1)
    frames, indices = torch.rand(1, 3, HEIGHT, WIDTH, dtype=torch.float64), torch.tensor([2])
    assert (decode(field, indices, frames) - decode(twin, indices, frames)).abs().max() > 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_a_batch_do_not_mix(kind):
    field = small_field(kind).double()
    frames, indices = torch.rand(3, 3, HEIGHT, WIDTH, dtype=torch.float64), torch.tensor([4, 0, 2])
    together = decode(field, indices, frames)
    for k in range(3):
        torch.testing.assert_close(decode(field, indices[k : k + 1], frames[k : k + 1])[0], together[k])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "hnerv"])
def test_the_time_code_reaches_the_frame(kind):
    """Of the same embedding, every frame number gives another picture; plain HNeRV alone knows no time."""
    field = small_field(kind)
    embeddings = None if field.embedding_shape is None else torch.rand(1, *field.embedding_shape).expand(2, -1, -1, -1)
    first, last = field.decode(torch.tensor([0, 4]), embeddings)
    assert (first - last).abs().max() > 1e-4


def test_plain_hnerv_knows_no_time():
    field = small_field("hnerv")
    embeddings = torch.rand(1, *field.embedding_shape).expand(2, -1, -1, -1)
    first, last = field.decode(torch.tensor([0, 4]), embeddings)
    assert torch.equal(first, last)


@pytest.mark.parametrize("kind", TIME_ONLY)
def test_only_hybrid_networks_encode(kind):
    field = small_field(kind)
    assert field.embedding_shape is None
    with pytest.raises(ValueError, match="has no encoder"):
        field.encode(torch.rand(1, 3, HEIGHT, WIDTH))


@pytest.mark.parametrize("kind", KINDS)
def test_codes_travel_with_the_weights(kind):
    """A stored video brings its time codes along; no other machine computes them anew."""
    assert "time_code" in small_field(kind).state_dict()
    assert ("stem.space_code" in small_field(kind).state_dict()) == kind.startswith("e-nerv")


@pytest.mark.parametrize("kind", KINDS)
def test_a_wider_network_is_never_smaller(kind):
    """What the search for a width relies on; E-NeRV saves a projection where width and tokens agree."""
    tokens = FIELDS[kind].token_width
    layout = FrameLayout(720, 1280, (5, 2, 2, 2, 2))
    with torch.device("meta"):
        fields = [
            FIELDS[kind].setup(layout=layout, num_frames=1, width=w)
            for w in (4, 5, 12, 13, *range(tokens - 1, tokens + 2))
        ]
    sizes = [field.num_decoder_parameters() for field in fields]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("kind", KINDS)
def test_trains_under_autocast(kind):
    """Mixed precision may be asked for on the command line: close to full precision, and gradients arrive."""
    field, frames, indices = small_field(kind), torch.rand(1, 3, HEIGHT, WIDTH), torch.tensor([2])
    expected = decode(field, indices, frames)
    with torch.autocast("cpu", torch.bfloat16):
        decoded = decode(field, indices, frames)
    torch.testing.assert_close(decoded.float(), expected, rtol=0, atol=0.05)
    decoded.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in field.parameters())


BUNNY, UVG, SHAKE = (720, 1280, 132), (1080, 1920, 600), (1080, 1920, 300)
PUBLISHED_STRIDES = {720: (5, 2, 2, 2, 2), 1080: (5, 3, 2, 2, 2)}
# Width after the stem and stored numbers in millions: method card section 2.8, and 2.6 for NeRV.
SIZES = [
    ("hnerv", BUNNY, {59: "0.751", 96: "1.516", 145: "3.033"}),
    ("hnerv-boost", BUNNY, {50: "0.759", 86: "1.508", 134: "3.081"}),
    ("nerv-boost", BUNNY, {15: "0.755", 30: "1.490", 55: "2.991"}),
    ("e-nerv-boost", BUNNY, {21: "0.753", 44: "1.538", 70: "3.070"}),
    ("hnerv", UVG, {103: "3.054", 154: "5.064", 236: "10.07", 296: "15.05"}),
    ("hnerv-boost", UVG, {95: "3.052", 143: "5.014", 222: "10.03", 280: "15.04"}),
    ("hnerv-boost", SHAKE, {114: "3.056", 156: "5.012", 231: "10.00", 287: "15.04"}),
    ("nerv-boost", UVG, {55: "3.058", 80: "4.995", 131: "10.08", 170: "15.04"}),
    ("e-nerv-boost", UVG, {59: "3.028", 79: "5.012", 115: "10.04", 142: "15.06"}),
    ("nerv", BUNNY, {26: "3.20", 58: "6.28", 112: "12.5"}),
    ("e-nerv", BUNNY, {196: "12.49"}),
]


@pytest.mark.parametrize(
    "kind, clip, f, published", [(kind, clip, f, size) for kind, clip, sizes in SIZES for f, size in sizes.items()]
)
def test_published_sizes(kind, clip, f, published):
    height, width, num_frames = clip
    strides = PUBLISHED_STRIDES[height]
    with torch.device("meta"):
        field = FIELDS[kind].setup(layout=FrameLayout(height, width, strides), num_frames=1, width=f)
        twin = PlainNetwork(kind, height, width, 1, f, strides=strides)
    embeddings = 0 if field.embedding_shape is None else num_frames * torch.Size(field.embedding_shape).numel()
    stored = field.num_decoder_parameters() + embeddings
    decimals = len(published.split(".")[1])
    assert f"{stored / 1e6:.{decimals}f}" == published
    decoder = [p for name, p in twin.named_parameters() if not name.startswith("encoder.")]
    assert field.num_decoder_parameters() == sum(p.numel() for p in decoder)


def test_the_encoder_is_not_stored():
    """Hybrid networks keep about 0.21 M numbers to themselves, and an embedding of 2304 numbers per frame."""
    with torch.device("meta"):
        field = FIELDS["hnerv-boost"].setup(layout=FrameLayout(720, 1280, (5, 2, 2, 2, 2)), num_frames=132, width=86)
    assert isinstance(field, BoostingNeRVField)
    encoder = sum(p.numel() for p in field.encoder.parameters())
    assert encoder == pytest.approx(0.21e6, rel=0.02)
    assert field.num_decoder_parameters() + encoder == sum(p.numel() for p in field.parameters())
    assert field.embedding_shape == (16, 9, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_layout_changes_nothing(kind):
    """Channels innermost, as the model runs it, gives the same frames and gradients as torch's default layout."""
    plain, _ = pair(kind)
    innermost = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    frames, weights = torch.rand(2, 1, 3, HEIGHT, WIDTH, dtype=torch.float64)
    gradients = []
    for field, layout in ((plain, torch.contiguous_format), (innermost, torch.channels_last)):
        embeddings = None if field.encoder is None else field.encode(frames.contiguous(memory_format=layout))
        decoded = field.decode(torch.tensor([1]), embeddings)
        (decoded.contiguous(memory_format=layout) * weights.contiguous(memory_format=layout)).sum().backward()
        gradients.append({name: p.grad for name, p in field.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=lambda text, name=name: f"{name}: {text}")
