import pytest
import torch

from nerfstudio_ext.codebook.autoencoder import (
    AutoencoderOptions,
    MovingCodebook,
    VqAutoencoder,
    learn_by_autoencoder,
)
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.pictures import procedural_pictures

SMALL = AutoencoderOptions(codes=32, width=16, steps=50, batch=6, crop=16, lr=4e-3, patience=10)


@pytest.fixture(scope="module")
def pictures():
    return procedural_pictures(12, 32)


def test_gradients_pass_by_the_codes():
    codebook = MovingCodebook(6, 4, 0.9, 10).eval()
    z = torch.randn(5, 4, requires_grad=True)
    shown, codes = codebook(z)
    assert torch.allclose(shown, codebook.table[codes])
    shown.sum().backward()
    assert torch.equal(z.grad, torch.ones(5, 4))


def test_codes_follow_what_falls_to_them():
    """Two heaps: two codes end at their means, by the same sums as a loop."""
    torch.manual_seed(0)
    codebook = MovingCodebook(2, 3, 0.8, patience=10_000).train()
    codebook.table = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])
    codebook.idle.zero_()
    counts, sums = [1.0, 1.0], [row.clone() for row in codebook.sums]
    heap = torch.cat([torch.randn(40, 3) * 0.1 + torch.tensor([2.0, 1, 0]), torch.randn(20, 3) * 0.1 - 3])
    for _ in range(60):
        _, codes = codebook(heap)
        for k in range(2):
            mine = heap[codes == k]
            counts[k] = 0.8 * counts[k] + 0.2 * len(mine)
            sums[k] = 0.8 * sums[k] + 0.2 * mine.sum(0)
    assert torch.allclose(codebook.table, torch.stack([s / c for s, c in zip(sums, counts)]), atol=1e-4)
    assert torch.allclose(codebook.table[0], heap[:40].mean(0), atol=1e-2)


def test_unused_codes_start_again():
    codebook = MovingCodebook(8, 2, 0.9, patience=3).train()
    z = torch.randn(50, 2) + 20
    for _ in range(8):
        codebook(z)
    assert (codebook.table.norm(dim=1) > 10).all(), "every code is where the data is"


def test_shapes():
    shown, codes, apart = VqAutoencoder(SMALL)(torch.rand(2, 3, 24, 24))
    assert shown.shape == (2, 3, 24, 24) and codes.shape == (18,) and apart.ndim == 0


def test_learning_rebuilds_pictures_it_has_not_seen(pictures):
    learned = learn_by_autoencoder(pictures, SMALL)
    assert learned.table.shape == (32, 16) and torch.isfinite(learned.table).all()
    assert learned.report["usage"] > 0.3
    start = AutoencoderOptions(**{**vars(SMALL), "steps": 2})
    short = learn_by_autoencoder(pictures, start)
    assert learned.report["gain_over_flat_db"] > short.report["gain_over_flat_db"] + 0.7
    assert torch.equal(short.table, learn_by_autoencoder(pictures, start).table), "the same seed, the same table"


def test_small_pictures_are_refused():
    with pytest.raises(InputError, match="0 of 3 pictures are at least 64 pixels"):
        learn_by_autoencoder([torch.rand(30, 90, 3)] * 3, AutoencoderOptions())
