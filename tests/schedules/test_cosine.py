import math
from itertools import pairwise
from typing import Any

import pytest
from torch.optim import lr_scheduler

from lightning_dlopt.schedules import CosineLR, CosineRestartsLR


@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_cosine_is_torchs(floor: float, fit: Any, torch_factors: Any) -> None:
    runs = fit(CosineLR(floor)).rates
    for group, rate in enumerate((0.005, 0.0002)):
        expected = torch_factors(
            lambda o, rate=rate: lr_scheduler.CosineAnnealingLR(o, 20, eta_min=floor * rate),
            20,
            rate,
        )
        assert [rates[group] for rates in runs] == pytest.approx(expected, rel=1e-10)


def test_cosine_spans_what_the_warm_up_leaves(fit: Any, times_rates: Any) -> None:
    expected = [0.25, 0.5, 0.75, 1.0]
    expected += [(1 + math.cos(math.pi * step / 16)) / 2 for step in range(16)]
    assert fit(CosineLR(warmup="20%")).rates == times_rates(expected)


@pytest.mark.parametrize(("period", "multiplier"), [(4, 1), (3, 2)])
def test_restarts_are_torchs(
    period: int, multiplier: int, fit: Any, torch_factors: Any, times_rates: Any
) -> None:
    expected = torch_factors(
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, period, multiplier), 20
    )
    assert fit(CosineRestartsLR(period, multiplier)).rates == times_rates(expected)


def test_restarts_by_epochs_after_a_warm_up(fit: Any, torch_factors: Any, times_rates: Any) -> None:
    expected = torch_factors(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5), 15)
    run = fit(CosineRestartsLR(period="0.5ep", warmup=5))
    assert run.rates == times_rates([0.2, 0.4, 0.6, 0.8, 1.0, *expected])


@pytest.mark.parametrize("percent", [10, 20, 25, 50])
def test_periods_that_fill_the_run_end_at_the_bottom_for_every_length(percent: int) -> None:
    for total in range(100, 400, 7):
        period = total * percent / 100
        factors = CosineRestartsLR(period=f"{percent}%").simulate(total)
        bottom = (1 + math.cos(math.pi * (1 - 1 / period))) / 2
        assert factors[-1] == pytest.approx(bottom, rel=1e-9)
        restarts = sum(later > earlier for earlier, later in pairwise(factors))
        assert restarts == 100 // percent - 1
