"""How far an optimizer step moves the weights of each layer, in units of their size."""

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_dlopt.core.parameters import select_parameters


def update_ratios(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
    """Return ``|after - before| / |before|`` of each tensor, by Euclidean norms.

    Left out are tensors that were all zeros before, for which there is no such number.

    Args:
        before: tensors by name.
        after: the same names and shapes.

    Example:
        >>> import torch
        >>> update_ratios({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([3.0, 4.5])})
        {'w': 0.1}
    """
    ratios = {}
    for name, old in before.items():
        size = float(old.double().norm())
        if size > 0:
            ratios[name] = float((after[name].double() - old.double()).norm()) / size
    return ratios


class WatchUpdates(Callback):
    """Notes the ratio of update to weights of each layer's weights, at some of the steps.

    Args:
        every: optimizer steps between two that are looked at.

    Attributes:
        ratios: a list for each parameter of two or more dimensions that is trained.
    """

    def __init__(self, every: int = 4) -> None:
        self.every = every
        self.ratios: dict[str, list[float]] = {}
        self._before: dict[str, Tensor] | None = None
        self._step = -1

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the weights before a step that is looked at."""
        if self._before is None and trainer.global_step % self.every == 0:
            self._step = trainer.global_step
            self._before = {
                name: weight.detach().clone() for name, weight in select_parameters(pl_module)
            }

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare with them once the step is made, after all its micro-batches."""
        if self._before is None or trainer.global_step == self._step:
            return
        now = {name: weight.detach() for name, weight in select_parameters(pl_module)}
        same = {name: old for name, old in self._before.items() if name in now}
        for name, ratio in update_ratios(same, now).items():
            self.ratios.setdefault(name, []).append(ratio)
        self._before = None

    def medians(self) -> dict[str, float]:
        """Return each layer's median over the second half of the steps that were looked at."""
        return {name: median(values[len(values) // 2 :]) for name, values in self.ratios.items()}

    def largest(self) -> dict[str, float]:
        """Return each layer's largest ratio; NaN if there was one."""
        return {
            name: math.nan if any(map(math.isnan, values)) else max(values)
            for name, values in self.ratios.items()
        }
