"""The number of steps that a schedule resolves is the number that the Trainer makes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.utils.data import DataLoader, IterableDataset

from lightning_dlopt.core import ArgumentError, NoEffectWarning
from lightning_dlopt.schedules import (
    ConstantLR,
    CosineLR,
    CosineRestartsLR,
    ExponentialDecayLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PiecewiseLR,
    Schedule,
    StepLR,
    WarmupStableDecayLR,
)


class Endless(IterableDataset[Any]):
    """Examples without a known number."""

    def __iter__(self) -> Iterator[Any]:
        for _ in range(12):
            yield (torch.ones(2),)


def endless(tiny: Any) -> Any:
    class Module(tiny):
        def train_dataloader(self) -> Any:
            return DataLoader(Endless(), batch_size=1)

    return Module()


RUNS: list[tuple[dict[str, Any], int]] = [
    ({"max_epochs": 3}, 30),
    ({"max_epochs": 3, "accumulate_grad_batches": 2}, 15),
    ({"max_epochs": 3, "accumulate_grad_batches": 4}, 9),  # 4 + 4 + 2 batches an epoch
    ({"max_epochs": 2, "accumulate_grad_batches": 100}, 2),
    ({"max_epochs": 5, "max_steps": 17}, 17),
    ({"max_epochs": 1, "max_steps": 17}, 10),
    ({"max_steps": 23}, 23),
    ({"max_epochs": -1, "max_steps": 12}, 12),
    ({"max_epochs": 2, "limit_train_batches": 7}, 14),
    ({"max_epochs": 2, "limit_train_batches": 0.5}, 10),
    ({"max_epochs": 3, "limit_train_batches": 7, "accumulate_grad_batches": 3}, 9),
    ({"max_epochs": 2, "overfit_batches": 3}, 6),
    ({"max_steps": 7, "accumulate_grad_batches": 3}, 7),
]


@pytest.mark.parametrize(("arguments", "total"), RUNS, ids=str)
def test_a_line_ends_with_the_run(
    arguments: dict[str, Any], total: int, fit: Any, times_rates: Any
) -> None:
    run = fit(LinearLR(), **arguments)
    assert run.trainer.global_step == total
    assert run.rates == times_rates([1 - step / total for step in range(total)])


@pytest.mark.parametrize(
    ("scheduling", "per_epoch"),
    [({0: 1, 2: 4}, [10, 10, 3, 3]), ({1: 2}, [10, 5, 5, 5]), ({0: 3, 1: 10, 3: 1}, [4, 1, 1, 10])],
)
def test_gradient_accumulation_scheduler(
    scheduling: dict[int, int], per_epoch: list[int], fit: Any, times_rates: Any
) -> None:
    total = sum(per_epoch)
    run = fit(LinearLR(), GradientAccumulationScheduler(scheduling), max_epochs=4)
    assert len(run.rates) == run.trainer.global_step == total
    assert run.rates == times_rates([1 - step / total for step in range(total)])

    stairs = [0.5**epoch for epoch, steps in enumerate(per_epoch) for _ in range(steps)]
    for schedule in (
        StepLR("1ep", 0.5),
        MultiStepLR(["1ep", "2ep", "3ep"], 0.5),
        ExponentialDecayLR(0.5, staircase=True),
    ):
        run = fit(schedule, GradientAccumulationScheduler(scheduling), max_epochs=4)
        assert run.rates == times_rates(stairs)


def test_data_without_a_length(tiny: Any, fit: Any, times_rates: Any) -> None:
    run = fit(LinearLR(warmup=5), module=endless(tiny), max_steps=20)
    expected = [(k + 1) / 5 for k in range(5)] + [1 - k / 15 for k in range(15)]
    assert run.rates == times_rates(expected)
    run = fit(MultiStepLR([15], 0.5), module=endless(tiny), max_epochs=2)
    assert run.rates == times_rates([1.0] * 15 + [0.5] * 9)
    run = fit(LinearLR(), module=endless(tiny), max_epochs=2, limit_train_batches=6)
    assert run.rates == times_rates([1 - step / 12 for step in range(12)])


UNKNOWN: list[tuple[Schedule, dict[str, Any], str]] = [
    (CosineLR(), {"max_epochs": 2}, r"CosineLR\(\) needs a run of known length"),
    (ConstantLR(warmup="10%"), {"max_epochs": 2}, "10% needs a run of known length"),
    (StepLR("2ep"), {"max_epochs": 2}, "no length.*give the span in steps"),
    (StepLR("2ep"), {"max_steps": 5}, "no length.*give the span in steps"),
    (MultiStepLR(["50%"]), {"max_epochs": -1}, "50% needs .*max_steps, or max_epochs"),
]


@pytest.mark.parametrize(("schedule", "arguments", "message"), UNKNOWN, ids=repr)
def test_what_cannot_be_known_is_refused_before_the_first_step(
    schedule: Schedule, arguments: dict[str, Any], message: str, tiny: Any, fit: Any
) -> None:
    module = endless(tiny)
    with pytest.raises(ArgumentError, match=message):
        fit(schedule, module=module, **arguments)
    assert module.trainer.global_step == 0


@pytest.mark.filterwarnings("error::lightning_dlopt.core.NoEffectWarning")
@pytest.mark.parametrize(
    "schedule",
    [
        CosineLR(warmup=500),
        OneCycleLR(rise=300),
        OneCycleLR(rise="100%", warmup="20ep"),
        WarmupStableDecayLR(warmup=500, decay=700),
        MultiStepLR([100, "3ep", "50%"]),
        PiecewiseLR([100, "1ep"], [0.5, 0.1], "cosine"),
        StepLR("10%"),
        StepLR("0.1ep"),
        CosineRestartsLR("30%", 2.0),
        ExponentialDecayLR(0.5, every="1%"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("batches", [1, 2])
def test_fast_dev_run_takes_any_span(schedule: Schedule, batches: int, fit: Any) -> None:
    rates = fit(schedule, fast_dev_run=batches).rates
    assert len(rates) == batches
    assert all(0 <= rate <= 0.005 for step in rates for rate in step)


def test_fitting_on_from_where_the_trainer_was(fit: Any, times_rates: Any) -> None:
    run = fit(StepLR("1ep", 0.5), max_epochs=2)
    run.trainer.fit_loop.max_epochs = 4
    run.trainer.fit(run.module)
    assert run.rates == times_rates([0.5**epoch for epoch in range(4) for _ in range(10)])


def test_one_step_is_told_to_be_constant(fit: Any) -> None:
    with pytest.warns(NoEffectWarning, match="stays the same over all 1 steps"):
        fit(CosineLR(), max_steps=1)
