import torch

from nerfstudio_ext.human.image_encoders import ConcatResBlock, GeometryEncoder, Hourglass, TextureEncoder


def numbers(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes_are_those_of_the_released_model():
    """Counted on the official definitions (method card, section 2), whose blocks without a projection keep the
    normalisation that would come before one, unused: of 128 channels once, of 256 fourteen times."""
    geometry = GeometryEncoder(stem=64, width=256, depth=4, coarse=64, fine=8)
    texture = TextureEncoder(width=64, blocks=4, outputs=8)
    assert numbers(geometry) == 6_299_400 - 2 * 128 - 14 * 2 * 256
    assert numbers(texture) == 21_962_248


def test_maps_have_the_promised_resolutions():
    pictures = torch.rand(2, 3, 32, 48)
    coarse, fine = GeometryEncoder(8, 16, 2, 12, 4)(pictures)
    assert coarse.shape == (2, 12, 8, 12) and fine.shape == (2, 4, 32, 48)
    assert TextureEncoder(4, 1, 5)(pictures).shape == (2, 5, 16, 24)


def test_blocks_keep_or_change_the_width():
    x = torch.rand(1, 8, 9, 7)
    assert ConcatResBlock(8, 8)(x).shape == (1, 8, 9, 7) and ConcatResBlock(8, 12)(x).shape == (1, 12, 9, 7)
    assert Hourglass(8, 3)(torch.rand(1, 8, 17, 11)).shape == (1, 8, 17, 11), "sides that halving does not divide"


def test_pictures_do_not_mix_within_a_batch():
    torch.manual_seed(0)
    pictures = torch.rand(3, 3, 32, 32)
    for encoder in (GeometryEncoder(8, 16, 2, 12, 4), TextureEncoder(4, 1, 5)):
        together, alone = encoder(pictures), encoder(pictures[1:2])
        for one, other in zip(together if isinstance(together, tuple) else (together,),
                              alone if isinstance(alone, tuple) else (alone,)):  # fmt: skip
            torch.testing.assert_close(one[1:2], other, atol=1e-4, rtol=1e-4)


def test_gradients_do_not_depend_on_the_layout_in_memory():
    """torch 2.7's instance normalisation has a wrong gradient on CPU where channels are the innermost axis."""
    torch.manual_seed(0)
    encoder, found = TextureEncoder(4, 1, 5), []
    pictures = torch.rand(2, 3, 32, 32)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = pictures.clone(memory_format=layout).requires_grad_()
        encoder(x).square().mean().backward()
        found.append(x.grad.contiguous())
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-3)
