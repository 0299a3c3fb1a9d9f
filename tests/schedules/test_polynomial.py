from typing import Any

import pytest
from torch.optim import lr_scheduler

from lightning_dlopt.schedules import LinearLR, PolynomialLR


@pytest.mark.parametrize("end", [0.0, 0.3])
def test_linear_is_torchs(end: float, fit: Any, torch_factors: Any, times_rates: Any) -> None:
    expected = torch_factors(lambda o: lr_scheduler.LinearLR(o, 1.0, end, total_iters=20), 20)
    assert fit(LinearLR(end)).rates == times_rates(expected)


def test_linear_may_rise(fit: Any, times_rates: Any) -> None:
    assert fit(LinearLR(end=3.0)).rates == times_rates([1 + step / 10 for step in range(20)])


@pytest.mark.parametrize("power", [0.5, 2.0, 3.3])
def test_polynomial_is_torchs(power: float, fit: Any, torch_factors: Any) -> None:
    expected = torch_factors(lambda o: lr_scheduler.PolynomialLR(o, 20, power), 20)
    got = [first / 0.005 for first, _ in fit(PolynomialLR(power)).rates]
    # torch multiplies the last rate by a ratio at every step and so gathers rounding errors
    assert got == pytest.approx(expected, rel=1e-11)


def test_polynomial_by_hand_with_end_and_warm_up(close: Any) -> None:
    expected = [0.5, 1.0] + [0.1 + 0.9 * (1 - step / 8) ** 1.5 for step in range(8)]
    assert PolynomialLR(1.5, end=0.1, warmup=2).simulate(10) == close(expected)
