"""Adan against the formula of the paper, written as a loop."""

import io
import time

import pytest
import torch

from nerfstudio_ext.engine.optimizers import Adan, AdanOptimizerConfig

BETAS = (0.98, 0.92, 0.99)


def naive_adan(theta, grads, lr, betas=BETAS, eps=1e-8, weight_decay=0.0):
    """One number at a time, as section 5.1 of the method card writes it."""
    beta1, beta2, beta3 = betas
    m = v = n = torch.zeros_like(theta)
    previous = grads[0]
    for k, g in enumerate(grads, start=1):
        d = g - previous
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * d
        n = beta3 * n + (1 - beta3) * (g + beta2 * d) ** 2
        update = m / (1 - beta1**k) + beta2 * v / (1 - beta2**k)
        theta = theta - lr * update / ((n / (1 - beta3**k)).sqrt() + eps)
        theta = theta / (1 + lr * weight_decay)
        previous = g
    return theta


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_matches_the_loop(weight_decay):
    torch.manual_seed(0)
    starts = [torch.randn(shape, dtype=torch.float64) for shape in [(3, 4), (5,), (), (2, 1, 3)]]
    grads = [[torch.randn_like(start) for start in starts] for _ in range(12)]
    params = [torch.nn.Parameter(start.clone()) for start in starts]
    optimizer = Adan(params, lr=0.02, betas=BETAS, weight_decay=weight_decay)
    for row in grads:
        for param, grad in zip(params, row):
            param.grad = grad.clone()
        optimizer.step()
    for index, (param, start) in enumerate(zip(params, starts)):
        expected = naive_adan(start, [row[index] for row in grads], lr=0.02, weight_decay=weight_decay)
        torch.testing.assert_close(param.detach(), expected, rtol=1e-10, atol=1e-12)


def test_parameter_without_gradient_stays_and_joins_later():
    early, late = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = Adan([early, late], lr=0.1, betas=BETAS)
    grads = [torch.tensor([0.5, -1.0]), torch.tensor([1.0, 2.0]), torch.tensor([-0.3, 0.1])]
    early.grad = grads[0].clone()
    optimizer.step()
    assert torch.equal(late, torch.ones(2))
    for grad in grads[1:]:
        early.grad, late.grad = grad.clone(), grad.clone()
        optimizer.step()
    torch.testing.assert_close(early.detach(), naive_adan(torch.ones(2), grads, lr=0.1))
    torch.testing.assert_close(late.detach(), naive_adan(torch.ones(2), grads[1:], lr=0.1))


def test_goes_on_from_a_saved_state():
    def run(optimizer, param, grads):
        for grad in grads:
            param.grad = grad.clone()
            optimizer.step()

    grads = list(torch.randn(8, 3, generator=torch.Generator().manual_seed(1)))
    straight = torch.nn.Parameter(torch.zeros(3))
    run(Adan([straight], lr=0.1), straight, grads)

    first = torch.nn.Parameter(torch.zeros(3))
    optimizer = Adan([first], lr=0.1)
    run(optimizer, first, grads[:4])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second = torch.nn.Parameter(first.detach().clone())
    resumed = Adan([second], lr=0.1)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    run(resumed, second, grads[4:])
    assert torch.equal(straight, second)


def test_reused_gradient_buffers_do_not_leak_into_the_state():
    """Gradients that are zeroed in place (as distributed training does) are not the stored previous gradients."""
    param = torch.nn.Parameter(torch.ones(1))
    optimizer = Adan([param], lr=0.1, betas=BETAS)
    grads = [torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([-2.0])]
    param.grad = torch.zeros(1)
    for grad in grads:
        optimizer.zero_grad(set_to_none=False)
        param.grad += grad
        optimizer.step()
    torch.testing.assert_close(param.detach(), naive_adan(torch.ones(1), grads, lr=0.1))


def test_refuses_nonsense():
    with pytest.raises(ValueError, match="betas in \\[0, 1\\)"):
        Adan([torch.nn.Parameter(torch.ones(1))], betas=(0.9, 1.0, 0.9))


def test_config_builds_it():
    optimizer = AdanOptimizerConfig(lr=0.5, max_norm=1.0).setup(params=[torch.nn.Parameter(torch.ones(1))])
    assert isinstance(optimizer, Adan)
    assert optimizer.defaults["lr"] == 0.5 and optimizer.defaults["betas"] == BETAS


def test_faster_than_a_loop_on_many_small_tensors():
    """Two hundred small tensors, as in a decoder: the fused update beats the formula in a Python loop."""
    params = [torch.nn.Parameter(torch.randn(32, 32)) for _ in range(200)]
    for param in params:
        param.grad = torch.randn_like(param)
    optimizer = Adan(params, lr=1e-3)

    def fused():
        optimizer.step()

    def loop():
        for param in params:
            naive_adan(param.detach(), [param.grad], lr=1e-3)

    def best(call):
        call()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(fused) < best(loop)
