"""A module and data as anybody writes them: plain torch, drawn from the global generators."""

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

SIZE = 96


class Plain(LightningModule):
    """Classifies points of a plane; writes what it began with and what it was shown to a file."""

    def __init__(self, trace: str = "", lr: float = 0.1, dropout: float = 0.2) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2)
        )
        self.trace, self.lr = trace, lr
        self.weights = torch.cat([p.detach().flatten() for p in self.parameters()]).tolist()
        self.seen: list[list[int]] = []

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        _, points, labels = batch
        logits = self.layers(points)
        return functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append(batch[0].tolist())
        return self.loss(batch)[0]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss, accuracy = self.loss(batch)
        self.log_dict({"val_loss": loss, "val_acc": accuracy})

    def test_step(self, batch: Any, batch_idx: int) -> None:
        loss, accuracy = self.loss(batch)
        self.log_dict({"test_loss": loss, "test_acc": accuracy, "val_acc": accuracy - 1})

    def on_train_end(self) -> None:
        if self.trace:
            line = json.dumps({"weights": self.weights, "seen": self.seen})
            with Path(self.trace).open("a") as file:
                file.write(line + "\n")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class PlainData(LightningDataModule):
    """Splits at random in ``setup``, and shuffles by torch's own sampler."""

    def __init__(self, shift: float = 0.0, test: str = "is the validation set") -> None:
        super().__init__()
        self.shift, self.test = shift, test

    def setup(self, stage: str) -> None:
        points = torch.randn(SIZE, 2, generator=torch.Generator().manual_seed(0))
        points[:, 0] += self.shift
        labels = (points[:, 0] > points[:, 1]).long()
        everything = TensorDataset(torch.arange(SIZE), points, labels)
        self.train, self.val = random_split(everything, [64, SIZE - 64])

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, batch_size=16, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, batch_size=16)

    def test_dataloader(self) -> DataLoader[Any]:
        if self.test == "raises":
            raise NotImplementedError("there is no test set")
        return DataLoader(self.val, batch_size=16)


class Thief(Callback):
    """Draws from every global generator wherever it can."""

    def _steal(self, *_: Any) -> None:
        torch.rand(7), np.random.rand(7), random.random()  # noqa: NPY002

    on_train_batch_start = on_train_batch_end = _steal  # type: ignore[assignment]
    on_train_epoch_start = on_train_epoch_end = _steal
    on_fit_start = on_train_start = on_validation_start = _steal

    def setup(self, *_: Any, **__: Any) -> None:
        self._steal()


class Exploding(Callback):
    """Makes the weights infinite after the first batch."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        with torch.no_grad():
            pl_module.layers[0].weight.fill_(float("inf"))


class Raising(Callback):
    """Fails in the second batch."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        if index == 1:
            raise RuntimeError("the second batch is too much")


class Early(Callback):
    """Fails in the first batch."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        raise RuntimeError("the first batch is too much")


class Dying(Callback):
    """Kills its process in the first batch, as often as ``times`` says.

    Args:
        count: a file that counts the deaths.
        times: how often.
    """

    def __init__(self, count: str, times: int) -> None:
        self.count, self.times = count, times

    def on_train_batch_start(self, *_: Any) -> None:
        path = Path(self.count)
        deaths = len(path.read_text()) if path.exists() else 0
        if deaths < self.times:
            path.write_text("x" * (deaths + 1))
            os.kill(os.getpid(), 9)
