"""Parameters to work on: a large network's, and many small ones; and the memory's speed."""

import time
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn


def large() -> list[nn.Parameter]:
    """Return ResNet-50's 161 tensors, 25.6 million numbers."""
    return list(torchvision.models.resnet50().parameters())


def small() -> list[nn.Parameter]:
    """Return the 1,100 tensors of 550 layers 16-12, 112 thousand numbers."""
    layers = nn.ModuleList(nn.Linear(16, 12) for _ in range(550))
    return list(layers.parameters())


def with_random_gradients(parameters: list[nn.Parameter], scale: float) -> list[Tensor]:
    """Give each parameter a gradient, and return copies of them."""
    torch.manual_seed(0)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) * scale
    return [p.grad.clone() for p in parameters if p.grad is not None]


def timed(
    work: Callable[[], object], parameters: list[nn.Parameter], gradients: list[Tensor]
) -> Callable[[], float]:
    """Return a measurement of ``work`` in seconds, on fresh gradients at each call."""

    def measure() -> float:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(gradient)
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return measure


def bandwidth() -> float:
    """Return how many bytes a second this machine's memory moves, reads and writes together.

    Measured in place: a copy would also read what it is about to overwrite.
    """
    tensor = torch.ones(1 << 26)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        tensor.mul_(1.0)
        times.append(time.perf_counter() - start)
    return 2 * 4 * tensor.numel() / min(times)
