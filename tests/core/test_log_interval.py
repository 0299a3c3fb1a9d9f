from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers.logger import DummyLogger
from torch.optim import SGD

from lightning_dlopt.core.log_interval import is_logging_step
from tests.quiet import QUIET


class Written(DummyLogger):
    """Keeps what the Trainer writes."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if "batch" in metrics:
            self.batches.append(int(metrics["batch"]))


class Logging(BoringModel):
    """Logs the number of each batch, and keeps those that were said to be written."""

    def __init__(self, optimizers: int = 1) -> None:
        super().__init__()
        self.automatic_optimization = optimizers == 1
        self.number = optimizers
        self.told: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        index = self.trainer.fit_loop.total_batch_idx
        self.log("batch", float(index))
        if is_logging_step(self.trainer):
            self.told.append(index)
        if self.automatic_optimization:
            return super().training_step(batch, batch_idx)
        for optimizer in self.optimizers():
            optimizer.step()
        return None

    def configure_optimizers(self) -> Any:
        return [SGD(self.parameters(), lr=0.1) for _ in range(self.number)]


@pytest.mark.parametrize("every", [0, 1, 4, 7])
@pytest.mark.parametrize(("optimizers", "accumulate"), [(1, 1), (1, 3), (2, 1), (3, 1)])
def test_is_what_the_trainer_writes(every: int, optimizers: int, accumulate: int) -> None:
    module, logger = Logging(optimizers), Written()
    Trainer(
        **{**QUIET, "logger": logger},
        limit_train_batches=10,
        limit_val_batches=0,
        max_epochs=3,
        log_every_n_steps=every,
        accumulate_grad_batches=accumulate,
    ).fit(module)
    # the Trainer writes once for each step, at the batch that ends its window
    assert set(logger.batches) <= set(module.told)
    assert bool(module.told) == bool(every)
    if accumulate == 1:
        assert module.told == logger.batches
