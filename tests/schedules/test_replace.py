"""A module that brings its own scheduler."""

from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from lightning_dlopt.core import ConflictError, TechniqueError
from lightning_dlopt.schedules import ConstantLR, CosineLR, LinearLR, PlateauLR

THEIRS: list[tuple[str, Any]] = [
    ("StepLR", lambda o: lr_scheduler.StepLR(o, 1)),
    ("LambdaLR", lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.01 * (step + 1))),
    ("LinearLR", lambda o: lr_scheduler.LinearLR(o)),
    (
        "SequentialLR",
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.5)], [1]
        ),
    ),
    (
        "ReduceLROnPlateau",
        lambda o: {"scheduler": lr_scheduler.ReduceLROnPlateau(o), "monitor": "train_loss"},
    ),
]


@pytest.mark.parametrize(("name", "theirs"), THEIRS, ids=[name for name, _ in THEIRS])
def test_conflict_unless_replace(
    name: str, theirs: Any, tiny: Any, fit: Any, times_rates: Any
) -> None:
    with pytest.raises(ConflictError, match=rf"CosineLR\(\).*TinyModule brings {name}.*replace"):
        fit(CosineLR(), module=tiny(scheduler=theirs))
    run = fit(LinearLR(replace=True), module=tiny(scheduler=theirs))
    assert run.rates == times_rates([1 - step / 20 for step in range(20)])
    assert len(run.trainer.lr_scheduler_configs) == 1


@pytest.mark.parametrize(
    "theirs",
    [
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
        lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.2, cycle_momentum=False),
    ],
)
def test_schedulers_that_overwrite_the_initial_rate_are_not_replaced(
    theirs: Any, tiny: Any, fit: Any
) -> None:
    with pytest.raises(TechniqueError, match="overwritten the optimizer's initial rate"):
        fit(LinearLR(replace=True), module=tiny(scheduler=theirs))


def test_replace_without_anything_to_replace(fit: Any, times_rates: Any) -> None:
    assert fit(ConstantLR(replace=True)).rates == times_rates([1.0] * 20)


@pytest.mark.parametrize("reverse", [False, True])
def test_two_schedules_are_a_conflict_that_names_both(reverse: bool, fit: Any) -> None:
    pair = [CosineLR(0.1), PlateauLR("m")][:: -1 if reverse else 1]
    with pytest.raises(ConflictError) as caught:
        fit(*pair)
    assert "CosineLR(floor=0.1)" in str(caught.value)
    assert "PlateauLR(monitor='m')" in str(caught.value)


def test_a_second_run_of_one_trainer_starts_from_the_modules_rate(
    tiny: Any, fit: Any, times_rates: Any
) -> None:
    run = fit(LinearLR(), max_epochs=1)
    again = fit(LinearLR(), module=run.module, max_epochs=1)
    assert run.rates == again.rates == times_rates([1 - step / 10 for step in range(10)])


def test_weights_are_those_of_a_loop_by_hand(tiny: Any, fit: Any) -> None:
    torch.manual_seed(5)
    module = tiny()
    first, second = tiny(), tiny()
    first.load_state_dict(module.state_dict())
    second.load_state_dict(module.state_dict())
    fit(CosineLR(warmup=3), module=first)
    optimizer = second.configure_optimizers()
    scheduler = lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 3),
            lr_scheduler.CosineAnnealingLR(optimizer, 17),
        ],
        [3],
    )
    for _ in range(20):
        optimizer.zero_grad()
        second.loss([torch.ones(1, 2)]).backward()
        optimizer.step()
        scheduler.step()
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-8)  # float32 weights
    assert not torch.equal(first.first.weight, module.first.weight)
