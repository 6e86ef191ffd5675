"""The divergence guard on a toy training that yields NaN."""

import pytest
import torch
from nerfstudio.engine.optimizers import Optimizers

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.guard import DivergenceGuard
from nerfstudio_ext.engine.optimizers import AdanOptimizerConfig
from nerfstudio_ext.engine.schedulers import WarmupCosineSchedulerConfig
from tests.toys import toy_trainer


class Training:
    """Fits a vector to a target, with a guard and an optional poisoned step."""

    def __init__(self, **guard):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 1)
        self.model.register_buffer("seen", torch.zeros(1))
        config = {
            "fields": {
                "optimizer": AdanOptimizerConfig(lr=0.1),
                "scheduler": WarmupCosineSchedulerConfig(max_steps=100, warmup=0.0),
            }
        }
        self.optimizers = Optimizers(config, {"fields": list(self.model.parameters())})
        self.guard = DivergenceGuard(self.model, self.optimizers, **guard)

    @property
    def rate(self):
        return self.optimizers.optimizers["fields"].param_groups[0]["lr"]

    def state(self):
        return {name: value.clone() for name, value in self.model.state_dict().items()}

    def step(self, step, poison=1.0):
        self.guard.before_step(step)
        self.optimizers.zero_grad_all()
        self.model.seen += poison
        loss = (self.model(torch.ones(3)) * poison - 2).square().sum()
        loss.backward()
        self.optimizers.optimizer_step_all()
        self.optimizers.schedulers["fields"].step()
        return self.guard.after_step(step, loss)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_goes_back_once_and_halves_the_rate_for_good():
    training = Training(interval=1)
    for step in range(5):
        assert not training.step(step)
    good = training.state()
    assert training.step(5, poison=float("nan"))
    assert same(good, training.state())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.05), 100
    )
    for _ in range(6):
        schedule.step()
    assert training.rate == pytest.approx(schedule.get_last_lr()[0])
    for step in range(6, 20):
        assert not training.step(step)
        schedule.step()
    assert training.rate == pytest.approx(schedule.get_last_lr()[0])
    assert all(torch.isfinite(value).all() for value in training.state().values())


def test_two_returns_to_one_copy_halve_twice():
    training = Training(interval=1000)
    good = training.state()
    for step, poison in enumerate([1.0, float("inf"), 1.0, float("nan")]):
        training.step(step, poison)
    assert same(good, training.state())
    assert training.optimizers.schedulers["fields"].base_lrs == [0.025]


def test_optimizer_memory_goes_back_too():
    training = Training(interval=1)
    training.step(0)
    memory = training.optimizers.optimizers["fields"].state_dict()["state"][0]["exp_avg"].clone()
    training.step(1, poison=float("nan"))
    state = training.optimizers.optimizers["fields"].state_dict()["state"][0]
    assert torch.equal(state["exp_avg"], memory) and state["step"] == 1


def test_looking_one_step_late_as_on_cuda():
    training = Training(interval=1000)
    training.guard._late = True
    good = training.state()
    assert not training.step(0) and not training.step(1, poison=float("nan"))
    assert training.step(2)
    assert same(good, training.state()) and training.guard.halvings == 1
    assert not training.step(3) and not training.step(4, poison=float("nan"))
    assert training.guard.settle(4), "a save right after the bad step must not store it"
    assert same(good, training.state()) and not training.step(5)


def test_poisoned_parameters_behind_a_finite_loss_are_never_copied_nor_saved():
    """A NaN gradient shows in the loss one step late; copies and saves look at the parameters themselves."""
    training = Training(interval=3)
    for step in range(3):
        training.step(step)
    with torch.no_grad():
        training.model.weight[0, 0] = float("nan")
    training.guard.before_step(3)
    assert torch.isfinite(training.model.weight).all() and training.guard.halvings == 1
    with torch.no_grad():
        training.model.weight[0, 0] = float("inf")
    assert training.guard.settle(4)
    assert torch.isfinite(training.model.weight).all()


def test_gives_up_with_a_sentence():
    training = Training(interval=1, max_halvings=2)
    with pytest.raises(InputError, match=r"step 2 was not a finite number, and halving .* 2 times"):
        for step in range(5):
            training.step(step, poison=float("nan"))


def test_trainer_survives_one_nan(tmp_path, capsys):
    trainer = toy_trainer(tmp_path, nan_at=(5,), max_num_iterations=30)
    trainer.train()
    assert trainer.guard.halvings == 1
    assert all(torch.isfinite(parameter).all() for parameter in trainer.pipeline.model.parameters())
    assert "not a finite number at step 5" in " ".join(capsys.readouterr().out.split())


def test_trainer_without_guard_is_poisoned(tmp_path):
    """The counterpart that shows the guard is what saves the run."""
    trainer = toy_trainer(tmp_path, nan_at=(5,), max_num_iterations=10, divergence_guard=False)
    trainer.train()
    assert not torch.isfinite(next(trainer.pipeline.model.network.parameters())).all()
