"""Sharpness-aware minimization against pytorch_optimizer's.

``python -m benchmarks.sam`` measures, in interleaved runs:

* what a step does to the weights of a ResNet-50 (25.6 million), forward and backward left out:
  perturb, restore, step of SGD;
* a whole step of a small network, forward and backward included. pytorch_optimizer's side is a
  hand-written loop, ours the same loop over the pure function, and a Trainer with the callback
  beside one without.

Needs ``pip install -e '.[bench]'``.
"""

import argparse
import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytorch_optimizer
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50

from benchmarks.measuring import interleaved, machine, repeated, table
from benchmarks.training_step import bare_fit
from lightning_dlopt import MLP, SAM, TensorLoader, perturb_weights

SIZES = [784, 128, 128, 10]


def with_gradients(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters, each with a gradient."""
    parameters = list(network.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return parameters


def theirs(parameters: list[nn.Parameter]) -> Callable[[], None]:
    """Return one handling of the weights by pytorch_optimizer."""
    optimizer = pytorch_optimizer.SAM(parameters, torch.optim.SGD, rho=0.05, lr=1e-9)

    def step() -> None:
        optimizer.first_step(zero_grad=False)
        optimizer.second_step(zero_grad=False)

    return step


def ours(parameters: list[nn.Parameter]) -> Callable[[], None]:
    """Return one handling of the weights as the callback does it."""
    optimizer = torch.optim.SGD(parameters, lr=1e-9)
    moved = [torch.empty_like(p, requires_grad=False) for p in parameters]

    def step() -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        perturb_weights([p.detach() for p in parameters], gradients, out=moved)
        held = [p.data for p in parameters]
        for parameter, data in zip(parameters, moved, strict=True):
            parameter.data = data
        for parameter, data in zip(parameters, held, strict=True):
            parameter.data = data
        optimizer.step()

    return step


def only_sgd(parameters: list[nn.Parameter]) -> Callable[[], None]:
    """Return a step of SGD: what is left without SAM."""
    return torch.optim.SGD(parameters, lr=1e-9).step


def whole_step(sam: bool, theirs: bool, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Return a hand-written step of the small network."""
    network = MLP(SIZES)
    parameters = list(network.parameters())
    moved = [torch.empty_like(p, requires_grad=False) for p in parameters]
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    other = pytorch_optimizer.SAM(parameters, torch.optim.SGD, rho=0.05, lr=0.01)

    def loss() -> Tensor:
        return functional.cross_entropy(network(x), y)

    def their_step() -> None:
        loss().backward()
        other.first_step(zero_grad=True)
        loss().backward()
        other.second_step(zero_grad=True)

    def our_step() -> None:
        optimizer.zero_grad()
        held = [p.data for p in parameters]
        if sam:
            perturb_weights(held, torch.autograd.grad(loss(), parameters), out=moved)
            for parameter, data in zip(parameters, moved, strict=True):
                parameter.data = data
        loss().backward()
        for parameter, data in zip(parameters, held, strict=True):
            parameter.data = data
        optimizer.step()

    return their_step if theirs else our_step


class Small(LightningModule):
    """The small network for a Trainer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = MLP(SIZES)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    steps = options.steps
    x, y = torch.randn(32 * steps, 784), torch.randint(10, (32 * steps,))
    loader = TensorLoader(x, y, batch_size=32)
    large = with_gradients(resnet50())
    handling = {
        "pytorch_optimizer.SAM": repeated(theirs(large), 5),
        "perturb_weights": repeated(ours(large), 5),
        "SGD without SAM": repeated(only_sgd(large), 5),
    }
    small = {
        "pytorch_optimizer.SAM, loop": repeated(whole_step(True, True, x[:32], y[:32]), steps),
        "perturb_weights, loop": repeated(whole_step(True, False, x[:32], y[:32]), steps),
        "SGD, loop": repeated(whole_step(False, False, x[:32], y[:32]), steps),
        "SAM callback, Trainer": lambda: bare_fit(Small(), loader, steps, SAM()),
        "SGD, Trainer": lambda: bare_fit(Small(), loader, steps),
    }
    handling_times = interleaved(handling, options.rounds)
    small_times = interleaved(small, options.rounds)
    print(f"\n{machine()}; {options.rounds} rounds; median (least - most)\n")
    print("The weights of a ResNet-50:\n")
    print(table(handling_times, "pytorch_optimizer.SAM", "ms a step", 1e3), "\n")
    print("A whole step of a small network:\n")
    print(table(small_times, "pytorch_optimizer.SAM, loop", "ms a step", 1e3))


if __name__ == "__main__":
    main()
