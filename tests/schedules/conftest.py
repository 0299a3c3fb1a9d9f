"""A tiny module with two param groups, a recorder of rates, torch's schedulers as references."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from tests.quiet import QUIET

RATES = (0.005, 0.0002)


class TinyModule(LightningModule):
    """Two layers, each in its own param group with its own rate."""

    def __init__(
        self,
        batches: int = 10,
        scheduler: Callable[[Optimizer], Any] | None = None,
        rates: Sequence[float | torch.Tensor] = RATES,
    ) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 1)
        self.batches = batches
        self.scheduler = scheduler
        self.rates = rates

    def loss(self, batch: Any) -> torch.Tensor:
        return self.second(self.first(batch[0])).pow(2).mean()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        groups = [
            {"params": layer.parameters(), "lr": rate}
            for layer, rate in zip((self.first, self.second), self.rates, strict=True)
        ]
        optimizer = SGD(groups, lr=self.rates[0])
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.scheduler(optimizer)}

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(self.batches, 2)), batch_size=1)

    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(1, 2)), batch_size=1)


@dataclass
class Recorder(Callback):
    """Keeps every param group's rate at every optimizer step."""

    rates: list[list[float]] = field(default_factory=list)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        self.rates.append([float(group["lr"]) for group in optimizer.param_groups])


@dataclass
class Run:
    """A finished fit."""

    trainer: Trainer
    module: LightningModule
    rates: list[list[float]]


def fit(
    *callbacks: Callback,
    module: LightningModule | None = None,
    ckpt_path: Any = None,
    **trainer_arguments: Any,
) -> Run:
    """Train a tiny module and return the rates of every optimizer step."""
    recorder = Recorder()
    module = TinyModule() if module is None else module
    arguments: dict[str, Any] = {
        **QUIET,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
    }
    if not {"max_epochs", "max_steps"} & set(trainer_arguments):
        arguments["max_epochs"] = 2
    trainer = Trainer(callbacks=[*callbacks, recorder], **{**arguments, **trainer_arguments})
    trainer.fit(module, ckpt_path=ckpt_path)
    return Run(trainer, module, recorder.rates)


def torch_factors(make: Callable[[Optimizer], Any], steps: int, rate: float = 1.0) -> list[float]:
    """Return the rates that torch's own scheduler sets, one before each of ``steps`` steps."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    scheduler = make(optimizer)
    factors = []
    for _ in range(steps):
        factors.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return factors


def close(expected: Sequence[float]) -> Any:
    """Compare to float64 rounding; the absolute part is for factors that end at nought."""
    return pytest.approx(list(expected), rel=1e-12, abs=1e-15)


def times_rates(factors: Sequence[float]) -> list[Any]:
    """Return what both param groups' rates must be, to float64 rounding."""
    return [pytest.approx([f * rate for rate in RATES], rel=1e-12, abs=1e-15) for f in factors]


@pytest.fixture(name="tiny")
def _tiny() -> type[TinyModule]:
    return TinyModule


@pytest.fixture(name="fit")
def _fit() -> Callable[..., Run]:
    return fit


@pytest.fixture(name="torch_factors")
def _torch_factors() -> Callable[..., list[float]]:
    return torch_factors


@pytest.fixture(name="close")
def _close() -> Callable[..., Any]:
    return close


@pytest.fixture(name="times_rates")
def _times_rates() -> Callable[..., list[Any]]:
    return times_rates


@pytest.fixture(autouse=True)
def _quiet_lightning() -> Iterator[None]:
    """Leave out Lightning's advice on loaders and hardware; this package's warnings stay."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(num_workers|logging interval|`fit_loop`).*")
        yield
