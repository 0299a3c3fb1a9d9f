"""What a step's L1 and L2 penalty costs, on a large network and on many small tensors.

``python -m benchmarks.penalties`` measures, for the parameters of torchvision's ResNet-50 and for
1,100 small tensors:

* what the penalty in the loss costs through autograd: its forward and backward pass alone;
* the same gradient by ``torch._foreach``, and by ours, plain and compiled;
* the proximal step, plain and compiled;
* the limit: the bytes that must be moved, at the measured speed of memory.

A last table times a whole step of the fused SGD, bare and with L2 in it or beside it, as a Trainer
would call them.
"""

import argparse
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from benchmarks.measuring import interleaved, machine, repeated, table
from benchmarks.tensors import bandwidth, large, small
from lightning_dlopt import L2, add_elastic_net_gradient_, elastic_net_penalty, soft_threshold_
from lightning_dlopt.regularization.tensor_groups import Workspace

STRENGTH = 1e-5


def sides(parameters: list[nn.Parameter], repeats: int) -> dict[str, Callable[[], float]]:
    """Return what is measured of one network."""
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters]
    spaces = {name: Workspace() for name in ("plain", "compiled", "shrink", "compiled shrink")}

    def in_the_loss() -> None:
        elastic_net_penalty(parameters, STRENGTH, STRENGTH).backward()

    @torch.no_grad()
    def foreach() -> None:
        torch._foreach_add_(gradients, torch._foreach_sign(parameters), alpha=STRENGTH)  # type: ignore[arg-type]
        torch._foreach_add_(gradients, parameters, alpha=2 * STRENGTH)  # type: ignore[arg-type]

    def ours(**options: Any) -> Callable[[], None]:
        return lambda: add_elastic_net_gradient_(parameters, STRENGTH, STRENGTH, **options)

    def shrink(**options: Any) -> Callable[[], None]:
        return lambda: soft_threshold_(parameters, 1e-9, 1 - 1e-7, **options)

    # a gradient is read and written, a weight read; a proximal step reads and writes weights
    elements = sum(parameter.numel() for parameter in parameters)
    speed = bandwidth()
    actions: dict[str, Callable[[], object]] = {
        "penalty in the loss": in_the_loss,
        "foreach": foreach,
        "ours": ours(workspace=spaces["plain"]),
        "ours, compiled": ours(workspace=spaces["compiled"], compiled=True),
        "proximal": shrink(workspace=spaces["shrink"]),
        "proximal, compiled": shrink(workspace=spaces["compiled shrink"], compiled=True),
    }
    measured = {name: repeated(action, repeats) for name, action in actions.items()}
    measured["limit of the gradient form"] = lambda: 12 * elements / speed
    measured["limit of the proximal form"] = lambda: 8 * elements / speed
    return measured


def optimizer_sides(make: Callable[[], list[nn.Parameter]]) -> dict[str, Callable[[], float]]:
    """Return a step of a fused optimizer: bare, with the penalty in it, and beside it."""

    def side(technique: L2 | None) -> Callable[[], float]:
        parameters = make()
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        module = LightningModule()
        module.weights = nn.ParameterList(parameters)
        optimizer = torch.optim.SGD(
            parameters, lr=1e-6, momentum=0.9, weight_decay=1e-5, fused=True
        )
        loop = SimpleNamespace(total_batch_idx=0)
        # what of a Trainer the technique asks for, so that nothing else is timed
        trainer: Any = SimpleNamespace(
            strategy=SingleDeviceStrategy("cpu"),
            optimizers=[optimizer],
            callbacks=[technique],
            gradient_clip_val=None,
            precision_plugin=None,
            log_every_n_steps=0,
            global_step=0,
            fit_loop=loop,
            lightning_module=SimpleNamespace(automatic_optimization=True),
        )
        if technique is None:
            return repeated(optimizer.step, 5)
        technique.on_fit_start(trainer, module)

        def step() -> None:
            technique.on_before_optimizer_step(trainer, module, optimizer)
            optimizer.step()

        return repeated(step, 5)

    return {
        "bare step": side(None),
        "L2 in the optimizer": side(L2(STRENGTH, "all", "weight_decay")),
        "L2 added to the gradients": side(L2(STRENGTH, "all")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"\n{machine()}; {options.rounds} rounds; median (least - most)")
    print(f"memory: {bandwidth() / 1e9:.1f} GB/s")
    for title, make, repeats in (("ResNet-50", large, 1), ("1,100 small tensors", small, 5)):
        times = interleaved(sides(make(), repeats), options.rounds)
        print(f"\n{title}\n")
        print(table(times, "penalty in the loss", "ms", 1e3))
        print(f"\n{title}: a step of fused SGD\n")
        times = interleaved(optimizer_sides(make), options.rounds)
        print(table(times, "bare step", "ms", 1e3))


if __name__ == "__main__":
    main()
