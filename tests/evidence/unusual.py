"""Modules and data that are written otherwise than :mod:`tests.evidence.plain`."""

from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.optim import lr_scheduler as schedulers
from torch.utils.data import DataLoader, Subset

from tests.evidence.plain import Plain, PlainData


class OneName(Plain):
    """Logs by one name in training and in validation, and has no test."""

    test_step = None  # type: ignore[assignment]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss, accuracy = self.loss(batch)
        self.log("acc", accuracy * 0 - 1, on_step=False, on_epoch=True)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("acc", self.loss(batch)[1])


class Unvalidated(Plain):
    """Has training only."""

    validation_step = None  # type: ignore[assignment]
    test_step = None  # type: ignore[assignment]


class Saving(Plain):
    """Brings callbacks of its own, one of which writes."""

    def __init__(self, dirpath: str) -> None:
        super().__init__()
        self.dirpath = dirpath

    def configure_callbacks(self) -> ModelCheckpoint:
        return ModelCheckpoint(dirpath=self.dirpath)


class Board:
    """What such an experiment is."""

    def draw(self, text: str) -> None:
        pass


class Drawing(CSVLogger):
    """A logger whose experiment has a method of its own."""

    @property
    def experiment(self) -> Any:
        return Board()


class Drawn(Plain):
    """Uses that method."""

    def on_validation_epoch_end(self) -> None:
        self.logger.experiment.draw("epoch")  # type: ignore[union-attr]


class Scheduled(Plain):
    """Has a schedule of several of torch's."""

    def __init__(self, kind: str, lr: float) -> None:
        super().__init__(lr=lr)
        self.kind = kind

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        decay = schedulers.LambdaLR(optimizer, lambda step: 0.9**step)
        schedule: Any
        if self.kind == "sequential":
            first = schedulers.LinearLR(optimizer, 0.1, total_iters=2)
            last = schedulers.CosineAnnealingLR(optimizer, 5, eta_min=self.lr / 10)
            schedule = schedulers.SequentialLR(optimizer, [first, decay, last], [2, 4])
        elif self.kind == "chained":
            constant = schedulers.ConstantLR(optimizer, 0.5, total_iters=3)
            schedule = schedulers.ChainedScheduler([constant, decay], optimizer)
        else:
            schedule = torch.optim.swa_utils.SWALR(optimizer, self.lr / 4, anneal_epochs=3)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Batched(PlainData):
    """Has batches of any size."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.size = size

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, batch_size=self.size)


class Redrawn(PlainData):
    """Draws a part of the data whenever it is asked for a loader."""

    def train_dataloader(self) -> DataLoader[Any]:
        some = torch.randperm(len(self.train))[:32].tolist()
        return DataLoader(Subset(self.train, some), batch_size=8)


class Floats(PlainData):
    """Has no integer in its batches."""

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, batch_size=16, collate_fn=_floats)


def _floats(samples: list[Any]) -> list[Tensor]:
    index, points, labels = torch.utils.data.default_collate(samples)
    return [index.float(), points, labels.float()]


class OfFloats(Plain):
    """Takes such batches."""

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        return super().loss([batch[0], batch[1], batch[2].long()])
