"""Two processes train one model: other frames each, the same weights in both."""

from pathlib import Path
from typing import Dict, List

import pytest
import torch

from tests.contract.ranks import train_rank
from tests.contract.runs import STEPS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NAMES = ["hnerv-boost-tiny", "nerv-tiny"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> List[Dict]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(train_rank, args=(2, folder, NAMES), nprocs=2)
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", NAMES)
def test_ranks_see_different_frames(name: str, ranks: List[Dict]) -> None:
    frames = [rank[name]["frames"] for rank in ranks]
    assert len(frames[0]) == len(frames[1]) == STEPS
    seen = [frame for rank in frames for step in rank for frame in step]
    assert len(set(seen)) == len(seen), "within an epoch every frame is seen once"


@pytest.mark.parametrize("name", NAMES)
def test_ranks_learn_the_same(name: str, ranks: List[Dict]) -> None:
    one, other = ranks[0][name], ranks[1][name]
    assert one["after"].keys() == other["after"].keys()
    trained = [key for key in one["after"] if not torch.equal(one["before"][key], one["after"][key])]
    assert len(trained) > 5
    for key in trained:
        if "embeddings" not in key:  # refreshed on the process that saves, right before it does
            assert torch.equal(one["after"][key], other["after"][key]), key
