"""The warm-up cosine, at the points that the card fixes."""

import math

import pytest
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.schedulers import WarmupCosineSchedulerConfig, warmup_cosine


@pytest.mark.parametrize(
    ("progress", "expected"),
    [(0.0, 0.1), (0.05, 0.55), (0.1, 1.0), (0.55, 0.5), (1.0, 0.0), (1.7, 0.0), (-0.3, 0.1), (0.325, 0.8535533906)],
)
def test_values(progress, expected):
    assert warmup_cosine(progress, warmup=0.1, start=0.1) == pytest.approx(expected, abs=1e-9)


def test_without_warmup_it_starts_at_the_full_rate():
    assert warmup_cosine(0.0, warmup=0.0, start=0.1) == 1.0


def test_drives_an_optimizer_with_python_floats():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0)
    scheduler = WarmupCosineSchedulerConfig(max_steps=20).setup().get_scheduler(optimizer, lr_init=2.0)
    rates = []
    for _ in range(21):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert all(type(rate) is float for rate in rates)
    assert rates[0] == pytest.approx(0.2) and rates[2] == pytest.approx(2.0) and rates[20] == pytest.approx(0.0)
    assert rates[11] == pytest.approx(1 + math.cos(math.pi * 0.5))


def test_resumed_run_follows_the_longer_schedule():
    def build(steps):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        config = WarmupCosineSchedulerConfig(max_steps=steps, warmup=0.0)
        return optimizer, config.setup().get_scheduler(optimizer, lr_init=1.0)

    optimizer, scheduler = build(10)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    state = scheduler.state_dict()
    optimizer, scheduler = build(12)
    scheduler.load_state_dict(state)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(warmup_cosine(6 / 12, 0.0, 0.1))


def test_unknown_length_is_an_error():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    with pytest.raises(InputError, match="max_steps is None"):
        WarmupCosineSchedulerConfig().setup().get_scheduler(optimizer, lr_init=1.0)
