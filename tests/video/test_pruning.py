"""Global magnitude pruning against a slow ranking."""

import pytest
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video.pruning import Pruner, PruningConfig


@pytest.fixture
def tensors():
    return {"a": torch.randn(6, 4, 3, 3), "a.bias": torch.randn(6) / 100, "b": 5 * torch.randn(3, 7)}


def test_the_largest_stay_over_all_tensors(tensors):
    ranked = sorted(abs(x) for name in ("a", "b") for x in tensors[name].reshape(-1).tolist())
    least = ranked[len(ranked) - round(0.3 * len(ranked))]
    expected = {name: t * (t.abs() >= least) if t.dim() > 1 else t.clone() for name, t in tensors.items()}
    pruner = Pruner(tensors)
    pruner.hold(tensors)  # nothing goes before it is started
    assert all(bool((tensor != 0).all()) for tensor in tensors.values())
    pruner.start(tensors, 0.3)
    pruner.hold(tensors)
    assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
    assert int(pruner.kept.sum()) == round(0.3 * len(ranked))


@pytest.mark.parametrize("keep", [0.0, -1.0, 1.5])
def test_shares_out_of_range(keep):
    with pytest.raises(InputError, match="--keep"):
        PruningConfig(keep)
