from typing import Any

import pytest
from torch.optim import lr_scheduler

from lightning_dlopt.core import ArgumentError
from lightning_dlopt.schedules import ExponentialDecayLR, ExponentialGrowthLR


@pytest.mark.parametrize("gamma", [0.3, 0.9])
def test_decay_per_step_is_torchs(
    gamma: float, fit: Any, torch_factors: Any, times_rates: Any
) -> None:
    expected = torch_factors(lambda o: lr_scheduler.ExponentialLR(o, gamma), 20)
    assert fit(ExponentialDecayLR(gamma, every=1)).rates == times_rates(expected)


def test_decay_per_epoch_is_smooth_by_default(fit: Any, times_rates: Any) -> None:
    expected = [0.5 ** (step / 10) for step in range(20)]
    assert fit(ExponentialDecayLR(0.5)).rates == times_rates(expected)


def test_stairs_per_epoch_are_torchs_step_lr(
    fit: Any, torch_factors: Any, times_rates: Any
) -> None:
    expected = torch_factors(lambda o: lr_scheduler.StepLR(o, 10, 0.5), 30)
    run = fit(ExponentialDecayLR(0.5, staircase=True), max_epochs=3)
    assert run.rates == times_rates(expected)


def test_growth_up_to_the_ceiling(fit: Any, times_rates: Any) -> None:
    expected = [min(4.0, 1.5 ** (step / 2)) for step in range(20)]
    assert fit(ExponentialGrowthLR(1.5, every=2, ceiling=4.0)).rates == times_rates(expected)


def test_floor_and_warm_up(close: Any) -> None:
    schedule = ExponentialDecayLR(0.5, every=2, floor=0.3, warmup=2)
    expected = [0.5, 1, 1, 0.5**0.5, 0.5, 0.5**1.5, 0.3, 0.3]
    assert schedule.simulate(8) == close(expected)


@pytest.mark.parametrize("epoch", [5, 7, 10, 391])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.5, 0.7, 1.5, 2.0])
def test_stairs_of_fractional_epochs_do_not_drift(epoch: int, share: float) -> None:
    schedule = ExponentialDecayLR(0.5, every=f"{share}ep", staircase=True)
    tenths = round(share * 10)
    exact = [0.5 ** ((10 * step) // (tenths * epoch)) for step in range(6 * epoch)]
    assert schedule.simulate(6 * epoch, epoch) == exact


@pytest.mark.parametrize("total", [14, 37, 100, 1001])
@pytest.mark.parametrize("percent", [5, 10, 25, 30])
def test_stairs_of_a_share_do_not_drift(total: int, percent: int) -> None:
    schedule = ExponentialDecayLR(0.5, every=f"{percent}%", staircase=True)
    exact = [0.5 ** ((100 * step) // (percent * total)) for step in range(total)]
    assert schedule.simulate(total) == exact


def test_growth_to_infinity_is_refused_before_the_first_step(fit: Any) -> None:
    schedule = ExponentialGrowthLR(10.0, every=1)
    with pytest.raises(ArgumentError, match=r"ExponentialGrowthLR\(.*infinity.*400 steps.*ceil"):
        schedule.simulate(400)
    assert schedule.simulate(300)[-1] == pytest.approx(1e299, rel=1e-12)
    with pytest.raises(ArgumentError, match="infinity"):
        fit(ExponentialGrowthLR(1e200, every=5))
