"""Learning-rate schedules whose values are python floats, so that checkpoints load with torch's safe loader."""

import math
from dataclasses import dataclass, field
from typing import Optional, Type

from nerfstudio.engine.schedulers import LRScheduler, Scheduler, SchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nerfstudio_ext.engine.errors import InputError


def warmup_cosine(progress: float, warmup: float, start: float) -> float:
    """Multiplier of the learning rate: a straight rise from `start` to 1, then half a cosine down to 0.

    Args:
        progress: Share of the training that is done; clamped to [0, 1].
        warmup: Share of the training spent rising; 0 starts at the full rate.
        start: Multiplier at the very first step.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return start + (1.0 - start) * progress / warmup
    if warmup >= 1.0:
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warmup) / (1.0 - warmup)))


@dataclass
class WarmupCosineSchedulerConfig(SchedulerConfig):
    """Linear warm-up followed by a cosine to zero (the schedule of HNeRV and Boosting-NeRV)."""

    _target: Type = field(default_factory=lambda: WarmupCosineScheduler)
    """target class to instantiate"""
    max_steps: Optional[int] = None
    """Steps from start to zero; none: the whole training."""
    warmup: float = 0.1
    """Share of the steps spent warming up."""
    start: float = 0.1
    """Share of the learning rate at the first step."""


class WarmupCosineScheduler(Scheduler):
    """Builds the schedule that `WarmupCosineSchedulerConfig` describes."""

    config: WarmupCosineSchedulerConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LRScheduler:
        """Schedule for one optimizer, stepped once per training step.

        Raises:
            InputError: The number of steps is neither in the config nor filled in by the trainer.
        """
        steps, warmup, start = self.config.max_steps, self.config.warmup, self.config.start
        if steps is None or steps < 1:
            raise InputError(
                f"The warm-up cosine schedule needs a number of steps, but max_steps is {steps}: set it in the "
                "optimizer config, or train with ExtTrainer, which fills it in."
            )
        # A plain function is left out of the checkpoint, so a resumed run may follow a longer schedule.
        return LambdaLR(optimizer, lambda step: warmup_cosine(step / steps, warmup, start))


@dataclass
class ExponentialSchedulerConfig(SchedulerConfig):
    """Exponential decay, step by step, to a share of the rate at the end of training (VolSDF, CoCo-INR)."""

    _target: Type = field(default_factory=lambda: ExponentialScheduler)
    """target class to instantiate"""
    max_steps: Optional[int] = None
    """Steps to the final share; none: the whole training."""
    final: float = 0.1
    """Share of the learning rate at the last step."""
    delay: int = 0
    """Steps before the decay begins."""


class ExponentialScheduler(Scheduler):
    """Builds the schedule that `ExponentialSchedulerConfig` describes."""

    config: ExponentialSchedulerConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LRScheduler:
        """Schedule for one optimizer, stepped once per training step.

        Raises:
            InputError: The number of steps is neither in the config nor filled in by the trainer, or the share is
                not above zero.
        """
        steps, final = self.config.max_steps, self.config.final
        if steps is None or steps < 1 or final <= 0:
            raise InputError(
                f"The exponential schedule needs a number of steps and a final share above zero, but has {steps} and "
                f"{final}: set max_steps and final in the optimizer config, or train with ExtTrainer."
            )
        # A run from before there was a delay has none in its config.
        delay = getattr(self.config, "delay", 0)
        span = max(steps - delay, 1)
        return LambdaLR(optimizer, lambda step: final ** min(max(step - delay, 0) / span, 1.0))
