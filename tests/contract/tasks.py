"""Modules of several shapes, as a stranger might have written them, with their data.

None of them knows of this package. Every module logs ``val_loss`` and has its learning rates in
``rates``, one for each param group of each optimizer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt.data import TensorLoader

SAMPLES, FEATURES, CLASSES, BATCH = 48, 6, 3, 8
BATCHES = SAMPLES // BATCH
RATE = 0.1


class NamedBatch(NamedTuple):
    x: Tensor
    y: Tensor


@dataclass
class DataBatch:
    x: Tensor
    y: Tensor


class ShapedLoader(TensorLoader):
    """A loader whose batches are lists, dicts, ... instead of tuples."""

    def __init__(
        self,
        shape: Callable[[Tensor, Tensor], Any],
        make_inputs: Callable[[torch.Generator], Tensor],
        **arguments: Any,
    ) -> None:
        generator = torch.Generator().manual_seed(5)
        inputs = make_inputs(generator)
        targets = torch.randint(CLASSES, (SAMPLES,), generator=generator)
        super().__init__(inputs, targets, **arguments)
        self.shape = shape

    def __iter__(self) -> Iterator[Any]:
        for x, y in super().__iter__():
            yield self.shape(x, y)


class Net(nn.Sequential):
    def __init__(self) -> None:
        # a dropout of 0 draws nothing; it is there for techniques that change it
        super().__init__(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Dropout(0.0), nn.Linear(8, CLASSES))


class TupleModule(LightningModule):
    """The plainest module: a tuple comes in, a loss tensor goes out."""

    rates: tuple[float, ...] = (RATE,)

    def __init__(self) -> None:
        super().__init__()
        self.net = self.make_net()

    def make_net(self) -> nn.Module:
        return Net()

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor]:
        x, y = batch
        return x, y

    def loss(self, batch: Any) -> Tensor:
        x, y = self.unpack(batch)
        return functional.cross_entropy(self.net(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=RATE)


class MomentumModule(TupleModule):
    """Plain SGD with momentum, whose steps are proportional to the gradient."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=RATE, momentum=0.9)


class DictModule(TupleModule):
    def unpack(self, batch: Any) -> tuple[Tensor, Tensor]:
        return batch["x"], batch["y"]


class AttributeModule(TupleModule):
    def unpack(self, batch: Any) -> tuple[Tensor, Tensor]:
        return batch.x, batch.y


class BatchNormModule(TupleModule):
    def make_net(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(FEATURES, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(8, CLASSES),
        )


class DropoutModule(TupleModule):
    """Draws from the global generator, as most modules do."""

    def make_net(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(FEATURES, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, CLASSES)
        )


class GroupsModule(TupleModule):
    """Two param groups, a parameter used twice, and a frozen one inside the optimizer."""

    rates = (RATE, RATE / 10)

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.middle.weight
        self.frozen = nn.Linear(8, 8)
        self.frozen.requires_grad_(False)
        self.net = nn.Sequential(
            nn.Linear(FEATURES, 8),
            self.middle,
            self.frozen,
            self.again,
            nn.Dropout(0.0),
            nn.Linear(8, CLASSES),
        )

    def configure_optimizers(self) -> Any:
        head = list(self.net[-1].parameters())
        body = [p for p in self.parameters() if not any(p is h for h in head)]
        groups = [{"params": body}, {"params": head, "lr": RATE / 10}]
        return torch.optim.AdamW(groups, lr=RATE)


class DictOutputModule(TupleModule):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": self.loss(batch), "extra": batch_idx}


class NoneOutputModule(TupleModule):
    """Skips every third batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 3 == 2 else self.loss(batch)


class OwnSchedulerModule(TupleModule):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}


class ManualModule(TupleModule):
    """Manual optimization with two optimizers, as a GAN is trained."""

    rates = (RATE, RATE / 2)

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()

    def configure_optimizers(self) -> Any:
        body, head = self.net[0], self.net[-1]
        return [
            torch.optim.SGD(body.parameters(), lr=RATE),
            torch.optim.SGD(head.parameters(), lr=RATE / 2),
        ]


class ManualScheduledModule(ManualModule):
    """Steps by itself whatever schedulers there are, as Lightning tells manual users to."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        super().training_step(batch, batch_idx)
        schedulers = self.lr_schedulers() or []
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            scheduler.step()


class KeptOptimizerModule(TupleModule):
    """Makes its optimizer once and brings it to every fit."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = torch.optim.SGD(self.parameters(), lr=RATE)

    def configure_optimizers(self) -> Any:
        return self.kept


class NanModule(TupleModule):
    """Loses its way in the third batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch) * (float("nan") if batch_idx == 2 else 1.0)


class CrashModule(TupleModule):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 3:
            raise ZeroDivisionError("the module's own defect")
        return self.loss(batch)


class ZeroRateModule(TupleModule):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def as_tuple(x: Tensor, y: Tensor) -> Any:
    return x, y


def as_list(x: Tensor, y: Tensor) -> Any:
    return [x, y]


def as_dict(x: Tensor, y: Tensor) -> Any:
    return {"x": x, "y": y}


def vectors(generator: torch.Generator) -> Tensor:
    return torch.randn(SAMPLES, FEATURES, generator=generator)


@dataclass(frozen=True)
class Task:
    """A module with the shape of its batches and what its inputs are."""

    module: type[TupleModule]
    shape: Callable[[Tensor, Tensor], Any] = as_tuple
    inputs: Callable[[torch.Generator], Tensor] = vectors

    def loader(self, *, train: bool, batch_size: int = BATCH, **arguments: Any) -> ShapedLoader:
        return ShapedLoader(
            self.shape, self.inputs, batch_size=batch_size, shuffle=train, **arguments
        )


PLAIN = Task(TupleModule)

#: What clause 1 trains; the name says what is unusual.
TASKS = {
    "tuple": PLAIN,
    "list": Task(TupleModule, as_list),
    "dict": Task(DictModule, as_dict),
    "named_tuple": Task(AttributeModule, NamedBatch),
    "dataclass": Task(AttributeModule, DataBatch),
    "momentum": Task(MomentumModule),
    "batch_norm": Task(BatchNormModule),
    "dropout": Task(DropoutModule),
    "groups": Task(GroupsModule),
    "dict_output": Task(DictOutputModule),
    "none_output": Task(NoneOutputModule),
    "own_scheduler": Task(OwnSchedulerModule),
    "manual": Task(ManualModule),
    "manual_scheduled": Task(ManualScheduledModule),
}

#: Further tasks that single clauses need.
SPECIAL = {
    "nan": Task(NanModule),
    "crash": Task(CrashModule),
    "zero_rate": Task(ZeroRateModule),
    "kept_optimizer": Task(KeptOptimizerModule),
}
