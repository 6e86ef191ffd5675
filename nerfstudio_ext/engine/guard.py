"""What happens when a loss stops being a number: back to the last good state, at half the learning rate."""

from typing import Any, Dict, List, Optional, Tuple

import torch
import torch.distributed as dist
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn

from nerfstudio_ext.engine.errors import InputError


class DivergenceGuard:
    """Keeps the last good state of a training in memory and returns to it when the loss becomes NaN or infinite.

    Parameters, buffers and optimizer states go back; the step counter and the schedules go on, at half the rate for
    good. On CUDA the loss of a step is looked at one step later, so that watching it never stalls the device. With
    several processes all of them go back together.

    Args:
        model: Unwrapped model.
        optimizers: Optimizers and schedules of the trainer.
        interval: Steps between two copies of the state, which is also the most that is lost.
        max_halvings: Returns after which the training is given up.
    """

    def __init__(self, model: nn.Module, optimizers: Optimizers, interval: int = 100, max_halvings: int = 8) -> None:
        self.model = model
        self.optimizers = optimizers
        self.interval = interval
        self.max_halvings = max_halvings
        self.halvings = 0
        self._good_step = -1
        self._good_model: Dict[str, Tensor] = {}
        self._good_optimizers: Dict[str, Any] = {}
        self._unread: Optional[Tensor] = None
        self._arriving: Optional[Tuple[Tensor, Optional[torch.cuda.Event]]] = None
        self._late = any(parameter.is_cuda for parameter in model.parameters())

    def before_step(self, step: int) -> None:
        """Copy the state when a copy is due; call it before each training step."""
        if self._good_model and step - self._good_step < self.interval:
            return
        if self.settle(step):
            return  # the state just restored is the copy
        self._good_step = step
        self._good_model = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self._good_optimizers = {name: _clone(o.state_dict()) for name, o in self.optimizers.optimizers.items()}

    def after_step(self, step: int, loss: Tensor) -> bool:
        """Look at the loss of a step and go back if it was no finite number.

        Returns:
            Whether the training went back.

        Raises:
            InputError: The training diverged more often than `max_halvings` allows.
        """
        self._unread = self._flag(~torch.isfinite(loss.detach()))
        if not self._late:
            return bool(self._unread) and self._go_back(step)
        previous, self._arriving = self._arriving, _send(self._unread)
        if previous is None:
            return False
        flag, arrived = previous
        if arrived is not None:
            arrived.synchronize()  # waits for the step before this one only
        return bool(flag) and self._go_back(step)

    def settle(self, step: int) -> bool:
        """Make sure that the state as it stands is good, going back if it is not; call it before every save.

        Returns:
            Whether the training went back.
        """
        if not self._good_model:
            return False
        values = [p for p in self.model.parameters() if p.is_floating_point() and p.numel() > 0]
        bad = ~torch.isfinite(torch.stack([p.detach().sum(dtype=torch.float32) for p in values])).all()
        if self._unread is not None:
            bad = bad | self._unread
        return bool(self._flag(bad)) and self._go_back(step)

    def _flag(self, bad: Tensor) -> Tensor:
        """Whether any process saw something bad."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            bad = bad.to(torch.int32)
            dist.all_reduce(bad, op=dist.ReduceOp.MAX)
        return bad.bool()

    def _go_back(self, step: int) -> bool:
        """Restore the copy and halve the learning rate."""
        self._unread = self._arriving = None
        self.halvings += 1
        if self.halvings > self.max_halvings:
            raise InputError(
                f"The loss at step {step} was not a finite number, and halving the learning rate {self.max_halvings} "
                "times did not help: train with a lower learning rate, or look for broken frames in the data."
            )
        rates = {name: _rates(o) for name, o in self.optimizers.optimizers.items()}
        self.model.load_state_dict(self._good_model)
        for name, optimizer in self.optimizers.optimizers.items():
            optimizer.load_state_dict(_clone(self._good_optimizers[name]))
            for group, rate in zip(optimizer.param_groups, rates[name], strict=True):
                group.update({key: value / 2 for key, value in rate.items()})
        for scheduler in self.optimizers.schedulers.values():
            scheduler.base_lrs = [rate / 2 for rate in scheduler.base_lrs]
            scheduler._last_lr = [rate / 2 for rate in scheduler.get_last_lr()]
        self.optimizers.zero_grad_all()
        CONSOLE.print(
            f"The loss was not a finite number at step {step}: back to the state before step {self._good_step}, "
            f"learning rate halved for good ({self.halvings} of at most {self.max_halvings} times).",
            style="bold yellow",
        )
        return True


def _send(flag: Tensor) -> Tuple[Tensor, Optional[torch.cuda.Event]]:
    """Start copying a flag from the GPU; it may be read once the event, if any, has passed."""
    if not flag.is_cuda:
        return flag, None
    copy = torch.empty((), dtype=torch.bool, pin_memory=True)
    copy.copy_(flag, non_blocking=True)
    event: Any = torch.cuda.Event()
    event.record()
    return copy, event


def _rates(optimizer: torch.optim.Optimizer) -> List[Dict[str, float]]:
    """Learning rates of each parameter group: the present one and the one its schedule starts from."""
    return [{key: group[key] for key in ("lr", "initial_lr") if key in group} for group in optimizer.param_groups]


def _clone(value: Any) -> Any:
    """Deep copy of a state dict with tensors, on the devices they are on."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _clone(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_clone(item) for item in value)
    return value
