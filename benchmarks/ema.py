"""The moving average's update against Lightning's and timm's.

``python -m benchmarks.ema`` measures, in one interleaved run, what ``on_train_batch_end`` of
Lightning's ``EMAWeightAveraging``, ``update`` of timm's ``ModelEmaV3``, and ``on_train_batch_end``
of ours take: for a ResNet-50 (25.6 million weights) and for the source example's MLP.

Needs ``pip install -e '.[bench]'``.
"""

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EMAWeightAveraging
from timm.utils import ModelEmaV3
from torch import nn
from torchvision.models import resnet50

from benchmarks.measuring import interleaved, machine, table
from lightning_dlopt import EMA, MLP

DECAY = 0.999


class Module(LightningModule):
    """A network in a LightningModule."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


def after_each_step(callback: Any, module: Module, steps: int) -> Callable[[], float]:
    """Return a measurement of a callback's seconds after a step."""
    trainer: Any = SimpleNamespace(global_step=0)

    def measure() -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            trainer.global_step += 1
            callback.on_train_batch_end(trainer, module, None, None, 1)
        return (time.perf_counter() - begin) / steps

    return measure


def lightning(network: nn.Module, steps: int) -> Callable[[], float]:
    """Return Lightning's side."""
    callback, module = EMAWeightAveraging(decay=DECAY), Module(network)
    callback.setup(SimpleNamespace(), module, "fit")  # type: ignore[arg-type]
    return after_each_step(callback, module, steps)


def timm(network: nn.Module, steps: int) -> Callable[[], float]:
    """Return timm's side."""
    average = ModelEmaV3(network, decay=DECAY)

    def measure() -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            average.update(network)
        return (time.perf_counter() - begin) / steps

    return measure


def ours(network: nn.Module, steps: int) -> Callable[[], float]:
    """Return our side."""
    return after_each_step(EMA(DECAY), Module(network), steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.manual_seed(0)
    networks: dict[str, tuple[Callable[[], nn.Module], int]] = {
        "ResNet-50": (resnet50, 5),
        "MLP 784-128-128-10": (lambda: MLP([784, 128, 128, 10]), 500),
    }
    print(f"\n{machine()}; {options.rounds} rounds; median (least - most)")
    for name, (build, steps) in networks.items():
        sides = {
            "Lightning's EMAWeightAveraging": lightning(build(), steps),
            "timm's ModelEmaV3": timm(build(), steps),
            "EMA": ours(build(), steps),
        }
        times = interleaved(sides, options.rounds)
        print(f"\n{name}:\n\n{table(times, next(iter(sides)), 'ms an update', 1e3)}")


if __name__ == "__main__":
    main()
