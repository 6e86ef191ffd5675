"""Every preset trains through the real trainer and leaves a checkpoint that any torch can read safely."""

from typing import Callable

import pytest
import torch
import yaml
from nerfstudio.engine.callbacks import TrainingCallbackLocation

from tests.contract.registered import METHODS
from tests.contract.runs import STEPS, Run, tiny_config


@pytest.fixture
def safe_loader() -> None:
    """torch's own list of loadable classes, without what the suite adds for runs of the host's methods."""
    if not hasattr(torch.serialization, "safe_globals"):
        yield
        return
    added = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.add_safe_globals(added)


@pytest.mark.parametrize("name", METHODS)
def test_two_steps(name: str, device: str, trained: Callable[[str, str], Run]) -> None:
    losses = torch.tensor(trained(name, device).losses)
    assert len(losses) == STEPS
    assert torch.isfinite(losses).all()


@pytest.mark.parametrize("name", METHODS)
def test_checkpoint_loads_safely(name: str, device: str, trained: Callable[[str, str], Run], safe_loader) -> None:
    state = torch.load(trained(name, device).checkpoint, map_location="cpu", weights_only=True)
    assert state["step"] == STEPS - 1
    assert all(torch.isfinite(value).all() for value in state["pipeline"].values() if value.is_floating_point())
    foreign = {key for key in state["pipeline"] if "lpips" in key.lower() or key.startswith("datamanager.")}
    assert foreign <= {"datamanager.frame"}, "networks of metrics and data do not belong in a checkpoint"


@pytest.mark.parametrize("name", METHODS)
def test_run_folder(name: str, device: str, trained: Callable[[str, str], Run]) -> None:
    """A stray file in the checkpoint folder breaks every stock command, and config.yml holds what training settled."""
    run = trained(name, device)
    assert [path.name for path in run.checkpoint.parent.iterdir()] == [f"step-{STEPS - 1:09d}.ckpt"]
    config = yaml.load(run.config_path.read_text(), Loader=yaml.Loader)
    assert config.max_num_iterations == STEPS
    assert config.load_dir is None and config.load_checkpoint is None


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_is_trained(name: str, tmp_path) -> None:
    """A parameter in no optimizer group is silently never trained; one that gets no gradient is dead weight."""
    trainer = tiny_config(name, tmp_path).setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.pipeline.train()
    for step in range(STEPS):  # methods with stages train some parameters in the first, others in the second
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        _, losses, _ = trainer.pipeline.get_train_loss_dict(step=step)
        sum(losses.values()).backward()
    grouped = {id(p) for group in trainer.optimizers.parameters.values() for p in group}
    for key, parameter in trainer.pipeline.named_parameters():
        if parameter.requires_grad and "device_indicator" not in key:
            assert id(parameter) in grouped, key
            assert parameter.grad is not None, key
