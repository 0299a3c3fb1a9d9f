"""What FullBatch refuses, and where it has no effect."""

from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from lightning_dlopt.core import ConflictError, NoEffectWarning, TechniqueError
from lightning_dlopt.optimizers import FullBatch
from tests.optimizers.whole_set import SAMPLES, Regression, assert_weights, by_hand, fit, loader


def test_other_accumulation_is_a_conflict() -> None:
    scheduler = GradientAccumulationScheduler({0: 1, 1: 2})
    for pair in ([FullBatch(), scheduler], [scheduler, FullBatch()]):
        with pytest.raises(ConflictError, match=r"FullBatch\(\).*GradientAccumulationScheduler"):
            fit(Regression(), loader(7), *pair)


def test_lbfgs_is_refused() -> None:
    with pytest.raises(TechniqueError, match="LBFGS"):
        fit(Regression(optimizer=torch.optim.LBFGS), loader(7), FullBatch())


def test_a_step_that_takes_the_iterator_is_refused() -> None:
    class TakesIterator(Regression):
        def training_step(self, dataloader_iter: Any) -> Any:  # type: ignore[override]
            return self.loss(*next(dataloader_iter)[0])

    with pytest.raises(TechniqueError, match="dataloader_iter"):
        fit(TakesIterator(), loader(7), FullBatch())


def odd(samples: list[Any]) -> Any:
    x, y = (torch.stack(part) for part in zip(*samples, strict=True))
    return x, y, torch.zeros(3)


class TakesOdd(Regression):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch[0], batch[1])


def test_a_batch_in_doubt_is_refused_and_a_key_helps() -> None:
    with pytest.raises(TechniqueError, match=r"FullBatch\(\): can't tell how many .*input_key"):
        fit(TakesOdd(), loader(7, collate_fn=odd), FullBatch())
    module = TakesOdd()
    fit(module, loader(7, collate_fn=odd), FullBatch(input_key=0))
    assert_weights(module, by_hand(Regression(), 3))


def test_one_batch_is_told() -> None:
    with pytest.warns(NoEffectWarning, match="in one batch"):
        fit(Regression(), loader(SAMPLES), FullBatch())
