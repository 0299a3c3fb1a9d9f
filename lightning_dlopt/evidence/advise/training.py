"""A quiet, short training run of a copy."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor
from torch.optim import Optimizer

from lightning_dlopt.core.batch_copy import copied


@dataclass
class Training:
    """What a short run did.

    Attributes:
        module: the trained copy.
        optimizers: that trained it.
        losses: of each training step; NaN where a step gave none.
        steps: optimizer steps made.
        cut_off: whether it ended because the time was over.
        seconds: how long it took.
        ends: when each step ended, by the clock of the probes.
    """

    module: LightningModule
    optimizers: list[Optimizer] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    steps: int = 0
    cut_off: bool = False
    seconds: float = 0.0
    ends: list[float] = field(default_factory=list)

    @property
    def step_seconds(self) -> float:
        """Seconds for each step, without what came before the first one's end."""
        if len(self.ends) < 2:
            return self.seconds
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


class Replay:
    """A loader of given batches; each pass gives fresh copies of them, which a step may change."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return (copied(batch, tensors=True) for batch in self.batches)


class ConstantRates(Callback):
    """Takes schedulers off: a short run isn't the whole run's first steps, nor its whole curve."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set each group's rate to the one that its scheduler starts from or rises to."""
        if not pl_module.automatic_optimization:
            return  # the module steps its schedulers itself
        trainer.strategy.lr_scheduler_configs.clear()
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = base_rate(group)


def base_rate(group: dict[str, Any]) -> float:
    """Return a param group's rate without its scheduler's factor; of OneCycleLR the largest.

    Example:
        >>> base_rate({"lr": 0.01, "initial_lr": 0.1})
        0.1
    """
    return float(group.get("max_lr", group.get("initial_lr", group["lr"])))


class Watch(Callback):
    """Notes the losses, and stops when the time is over."""

    def __init__(self, training: Training, deadline: float, clock: Callable[[], float]) -> None:
        self.training, self.deadline, self.clock = training, deadline, clock

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the optimizers."""
        self.training.optimizers = trainer.optimizers

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss as the training step gave it."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        value = float(loss.detach()) if isinstance(loss, Tensor) else float("nan")
        if pl_module.automatic_optimization:  # Lightning has divided it
            value *= trainer.accumulate_grad_batches
        self.training.losses.append(value)
        self.training.steps = trainer.global_step
        self.training.ends.append(self.clock())
        if self.training.ends[-1] >= self.deadline and trainer.global_step < trainer.max_steps:
            self.training.cut_off = trainer.should_stop = True


class HoldWeights(Callback):
    """Puts the weights back after each step, so that each sees those of the beginning."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights."""
        self._kept = [p.detach().clone() for p in pl_module.parameters()]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Put them back."""
        with torch.no_grad():
            for parameter, kept in zip(pl_module.parameters(), self._kept, strict=True):
                parameter.copy_(kept)


def quiet_trainer(like: Trainer | None, callbacks: Sequence[Callback], max_steps: int) -> Trainer:
    """Return a Trainer that writes and prints nothing, with the precision and clipping of another.

    It stops after ``max_steps`` optimizer steps and never validates.
    """
    settings: dict[str, Any] = {"accelerator": "cpu"}
    if like is not None:
        settings = {
            "accelerator": like.strategy.root_device.type,
            "precision": like.precision,
            "gradient_clip_val": like.gradient_clip_val,
            "gradient_clip_algorithm": like.gradient_clip_algorithm,
            "accumulate_grad_batches": like.accumulate_grad_batches,
        }
    return Trainer(
        devices=1,
        max_steps=max_steps,
        max_epochs=-1,
        callbacks=list(callbacks),
        logger=DummyLogger(),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        **settings,
    )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says of the machine and the run in the block."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def quietly() -> Iterator[None]:
    """Silence warnings, too."""
    with quiet_lightning(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def now() -> float:
    """Return the time of a clock that never goes back, in seconds."""
    return time.perf_counter()
