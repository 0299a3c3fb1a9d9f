"""What the tests of FullBatch train, and the same by gradients of the whole set."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from tests.quiet import QUIET

SAMPLES, RATE = 23, 0.3
X = torch.randn(SAMPLES, 4, generator=torch.Generator().manual_seed(0))
Y = X.square().sum(1, keepdim=True).sin()


class Regression(LightningModule):
    """Least squares; leaves out the batches in ``skips``."""

    def __init__(self, skips: tuple[int, ...] = (), optimizer: Any = torch.optim.SGD) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
        self.skips = skips
        self.optimizer = optimizer

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.net(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx in self.skips else self.loss(*batch)

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters(), lr=RATE)


class Endless(IterableDataset[Any]):
    """Has an end, but no length."""

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(X, Y, strict=True))


def loader(batch_size: int, **arguments: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), batch_size, **arguments)


def by_hand(module: Regression, steps: int, x: Tensor = X, y: Tensor = Y) -> list[Tensor]:
    """Train by gradients of the whole set in one batch; return the weights."""
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        module.loss(x, y).backward()
        optimizer.step()
    return [parameter.detach() for parameter in module.parameters()]


def fit(module: Regression, data: Any, *callbacks: Callback, **arguments: Any) -> Trainer:
    settings = {**QUIET, "devices": 1, "max_epochs": 3, **arguments}
    trainer = Trainer(callbacks=list(callbacks), **settings)
    trainer.fit(module, data, ckpt_path=None)
    return trainer


def assert_weights(module: Regression, expected: list[Tensor], **tolerance: float) -> None:
    for got, want in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(got.detach(), want, **tolerance)  # type: ignore[arg-type]


def scaled(precision: bool) -> list[Any]:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    return [MixedPrecision("16-mixed", "cpu", scaler)] if precision else []


class Saves(Callback):
    def __init__(self, path: Path, batch: int) -> None:
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            trainer.save_checkpoint(self.path)


def resume(path: Path, data: Any, *callbacks: Callback, **arguments: Any) -> Regression:
    module = Regression()
    settings = {**QUIET, "devices": 1, "max_epochs": 3, **arguments}
    Trainer(callbacks=list(callbacks), **settings).fit(module, data, ckpt_path=path)
    return module
