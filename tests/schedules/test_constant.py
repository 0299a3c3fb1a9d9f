from typing import Any

from lightning_dlopt.schedules import ConstantLR


def test_the_rates_never_move(fit: Any, times_rates: Any) -> None:
    assert fit(ConstantLR()).rates == times_rates([1.0] * 20)


def test_constant_after_the_warm_up(fit: Any, times_rates: Any) -> None:
    expected = [0.25, 0.5, 0.75, 1.0] + [1.0] * 16
    assert fit(ConstantLR(warmup="20%")).rates == times_rates(expected)
