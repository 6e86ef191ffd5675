"""Adan (Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models", TPAMI 2024)."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, Optional, Tuple, Type, cast

import torch
from nerfstudio.engine.optimizers import OptimizerConfig
from torch import Tensor
from torch.optim import Optimizer


class Adan(Optimizer):
    """Adaptive Nesterov momentum: Adam with a third average, of how the gradient changes from step to step.

    With gradient g_k and its change d_k = g_k - g_{k-1} (d_1 = 0):
    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) d,  n = b3 n + (1 - b3) (g + b2 d)^2, and
    theta -= lr * [m / (1 - b1^k) + b2 v / (1 - b2^k)] / (sqrt(n / (1 - b3^k)) + eps).

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate.
        betas: Memory of the averages m, v and n.
        eps: Added to the root for stability.
        weight_decay: Decoupled decay, applied after the update as theta /= 1 + lr * weight_decay.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: Tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0 or len(betas) != 3 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"Adan wants lr, eps, weight_decay >= 0 and three betas in [0, 1), "
                f"got lr={lr}, eps={eps}, weight_decay={weight_decay}, betas={betas}."
            )
        super().__init__(params, dict(lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: Optional[Callable[[], Tensor]] = None) -> Optional[Tensor]:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for step, params in self._params_by_step(group["params"]).items():
                self._update(params, step, group)
        return loss

    def _params_by_step(self, params: List[Tensor]) -> Dict[int, List[Tensor]]:
        """Parameters with a gradient, bundled by how many updates they have seen, this one included."""
        bundles = defaultdict(list)
        for param in params:
            if param.grad is None:
                continue
            state = self.state[param]
            if not state:
                state["step"] = 0
                state["exp_avg"] = torch.zeros_like(param)
                state["exp_avg_diff"] = torch.zeros_like(param)
                state["exp_avg_sq"] = torch.zeros_like(param)
                state["previous_grad"] = param.grad.clone()
            state["step"] += 1
            bundles[state["step"]].append(param)
        return bundles

    def _update(self, params: List[Tensor], step: int, group: Dict) -> None:
        """One Adan update of parameters that all stand at the same step, with a constant number of fused calls."""
        beta1, beta2, beta3 = group["betas"]
        lr = group["lr"]
        grads = [cast(Tensor, param.grad) for param in params]
        means, mean_diffs, squares, previous = (
            [self.state[param][key] for param in params]
            for key in ("exp_avg", "exp_avg_diff", "exp_avg_sq", "previous_grad")
        )
        # On the CPU a fused call with a scalar costs several times one with tensors, so there are as few as possible.
        torch._foreach_neg_(previous)
        torch._foreach_add_(previous, grads)  # now the change of the gradient
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_lerp_(mean_diffs, previous, 1 - beta2)
        ahead = torch._foreach_add(grads, previous, alpha=beta2)
        torch._foreach_mul_(ahead, ahead)
        torch._foreach_lerp_(squares, ahead, 1 - beta3)
        for kept, grad in zip(previous, grads, strict=True):
            kept.copy_(grad)

        # The bias correction c of the root is taken out of the fraction: m / (root / c + eps) = c m / (root + c eps).
        correction = (1 - beta3**step) ** 0.5
        # pow: the vectorised sqrt of the CPU wakes all threads for each tensor, which stalls on a busy machine.
        roots = torch._foreach_pow(squares, 0.5)
        torch._foreach_add_(roots, correction * group["eps"])
        torch._foreach_addcdiv_(params, means, roots, -lr * correction / (1 - beta1**step))
        torch._foreach_addcdiv_(params, mean_diffs, roots, -lr * correction * beta2 / (1 - beta2**step))
        if group["weight_decay"] > 0:
            torch._foreach_div_(params, 1 + lr * group["weight_decay"])


@dataclass
class AdanOptimizerConfig(OptimizerConfig):
    """Adan with the settings of Boosting-NeRV."""

    _target: Type = Adan
    """The optimizer class to use."""
    lr: float = 3e-3
    """The learning rate to use."""
    eps: float = 1e-8
    """The epsilon value to use."""
    betas: Tuple[float, float, float] = (0.98, 0.92, 0.99)
    """Memory of the averages of gradient, gradient change and squared look-ahead gradient."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""


@dataclass
class AdamBetasOptimizerConfig(OptimizerConfig):
    """Adam whose averaging memory can be set; the host's own config has no such field."""

    _target: Type = torch.optim.Adam
    """The optimizer class to use."""
    betas: Tuple[float, float] = (0.9, 0.999)
    """Memory of the averages of gradient and squared gradient."""


@dataclass
class RMSpropOptimizerConfig(OptimizerConfig):
    """Torch's RMSprop (ICON's choice for its point network)."""

    _target: Type = torch.optim.RMSprop
    """The optimizer class to use."""
    weight_decay: float = 0
    """The weight decay to use."""
