from fractions import Fraction
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.optim import Optimizer

from lightning_dlopt.core import ArgumentError, RunLength
from tests.quiet import QUIET


class Probe(Callback):
    """Resolves the run's length before the first step; counts steps and where epochs end."""

    def __init__(self) -> None:
        self.steps = 0
        self.ends: list[int] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.run = RunLength.of(trainer, automatic=pl_module.automatic_optimization)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        self.steps += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ends.append(self.steps)


def fit(*callbacks: Callback, **arguments: Any) -> Probe:
    probe = Probe()
    Trainer(
        callbacks=[*callbacks, probe],
        limit_val_batches=0,
        **{**QUIET, "limit_train_batches": 9, **arguments},
    ).fit(BoringModel())
    return probe


ARGUMENTS: list[dict[str, Any]] = [
    {"max_epochs": 2},
    {"max_epochs": 2, "accumulate_grad_batches": 4},
    {"max_epochs": 2, "accumulate_grad_batches": 9},
    {"max_epochs": 2, "accumulate_grad_batches": 10},
    {"max_steps": 5},
    {"max_steps": 25},
    {"max_epochs": 4, "max_steps": 25, "accumulate_grad_batches": 2},
    {"max_epochs": 1, "limit_train_batches": 0.25},
    {"fast_dev_run": 3},
    {"fast_dev_run": 3, "accumulate_grad_batches": 2},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_total_is_the_steps_that_are_made(arguments: dict[str, Any]) -> None:
    probe = fit(**arguments)
    assert probe.run.total == probe.steps
    assert probe.run.trial == ("fast_dev_run" in arguments)


@pytest.mark.parametrize("scheduling", [{0: 2}, {1: 3}, {0: 4, 2: 1}, {1: 2, 2: 9, 4: 5}], ids=str)
def test_epochs_end_where_the_accumulation_scheduler_lets_them(scheduling: Any) -> None:
    probe = fit(GradientAccumulationScheduler(scheduling), max_epochs=5)
    assert probe.run.total == probe.steps
    assert [probe.run.step_at(epoch + 1) for epoch in range(5)] == probe.ends
    assert [probe.run.epoch_at(end) for end in probe.ends] == pytest.approx([1, 2, 3, 4, 5])


def test_no_end() -> None:
    class Stop(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = True

    run = fit(Stop(), max_epochs=-1).run
    assert (run.total, run.epoch_batches) == (None, 9)
    assert run.step_at(3) == 27


def test_fractions_of_epochs_of_different_length() -> None:
    run = RunLength(None, 10, {0: 1, 2: 5})
    assert [run.step_at(epochs) for epochs in (0, 0.5, 2, 2.5, 3, 10)] == [0, 5, 20, 21, 22, 36]
    exact = [Fraction(step, 10) for step in range(20)] + [2 + Fraction(k, 2) for k in range(9)]
    assert [run.epoch_at(step) for step in range(29)] == pytest.approx([float(e) for e in exact])


def test_epochs_without_a_length_are_refused() -> None:
    with pytest.raises(ArgumentError, match="no length"):
        RunLength(10).step_at(1)
    with pytest.raises(ArgumentError, match="no length"):
        RunLength(10).epoch_at(1)
