"""What keyed draws cost: scheduled dropout and stochastic depth against torch's own layers.

``python -m benchmarks.dropped_layers`` measures training steps of a residual MLP in one interleaved
run: without dropout, with torch's dropout, with the layers driven by ``ScheduledDropout``, with
``StochasticDepth``, and with both techniques at a setting where they do nothing.
"""

import argparse
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor
from torch.nn import functional

from benchmarks.measuring import interleaved, machine, table
from benchmarks.training_step import bare_fit
from lightning_dlopt import MLP, ScheduledDropout, StochasticDepth, TensorLoader


class Module(LightningModule):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.net = MLP([784, *[width] * 4, 10], dropout=dropout, residual=True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), fused=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=128)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    loader = TensorLoader(torch.randn(6400, 784), torch.randint(10, (6400,)), batch_size=32)

    def fit(dropout: float, *techniques: Callback) -> float:
        module = Module(options.width, dropout)
        return bare_fit(module, loader, options.steps, *techniques)

    branches = ["net.*.branch"]
    sides: dict[str, Callable[[], float]] = {
        "torch's dropout": lambda: fit(0.3),
        "ScheduledDropout": lambda: fit(0.3, ScheduledDropout(0.3, 0.1, "100%")),
        "ScheduledDropout that changes nothing": lambda: fit(0.3, ScheduledDropout(0.3, 0.3, 1)),
        "no dropout": lambda: fit(0.0),
        "StochasticDepth": lambda: fit(0.0, StochasticDepth(0.2, branches)),
        "StochasticDepth of rate 0": lambda: fit(0.0, StochasticDepth(0.0, branches)),
    }
    times = interleaved(sides, options.rounds)
    print(
        f"\n{machine()}; {options.rounds} rounds of {options.steps} steps; median (least - most)\n"
    )
    print(table(times, "torch's dropout", "ms a step", 1e3))


if __name__ == "__main__":
    main()
