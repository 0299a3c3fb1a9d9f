from collections.abc import Callable
from typing import Any

import pytest

from lightning_dlopt.core import ArgumentError
from lightning_dlopt.schedules import (
    ConstantLR,
    CosineLR,
    CosineRestartsLR,
    CyclicLR,
    ExponentialDecayLR,
    LinearLR,
    OneCycleLR,
    PolynomialLR,
    Schedule,
    WarmupStableDecayLR,
)

AFTER_THE_WARM_UP: list[Callable[..., Schedule]] = [
    CosineLR,
    LinearLR,
    lambda **w: PolynomialLR(2.0, **w),
    lambda **w: OneCycleLR(10, **w),
    lambda **w: WarmupStableDecayLR(decay=10, **{"warmup": 0, **w}),
    lambda **w: CosineRestartsLR(7, 2, **w),
    lambda **w: CyclicLR(6, 0.5, 2.0, **w),
    lambda **w: ExponentialDecayLR(0.5, 3, **w),
]


@pytest.mark.parametrize("start", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("warmup", [1, 7, "25%", "1.5ep"])
def test_formula(warmup: Any, start: float, close: Any) -> None:
    steps = {1: 1, 7: 7, "25%": 10, "1.5ep": 12}[warmup]
    expected = [start + (1 - start) * (k + 1) / steps for k in range(steps)]
    got = ConstantLR(warmup=warmup, warmup_start=start).simulate(40, epoch_steps=8)
    assert got == close(expected + [1.0] * (40 - steps))


@pytest.mark.parametrize("make", AFTER_THE_WARM_UP, ids=lambda make: repr(make()))
@pytest.mark.parametrize("warmup", [1, 5, 20])
def test_the_curve_then_spans_what_is_left(
    make: Callable[..., Schedule], warmup: int, close: Any
) -> None:
    warmed = make(warmup=warmup).simulate(40)
    assert warmed[warmup:] == close(make().simulate(40 - warmup))
    assert warmed[:warmup] == close([(k + 1) / warmup for k in range(warmup)])


def test_warm_up_over_the_whole_run(fit: Any, times_rates: Any) -> None:
    run = fit(CosineLR(warmup="100%"))
    assert run.rates == times_rates([(k + 1) / 20 for k in range(20)])


def test_longer_than_the_run_is_refused_before_the_first_step(fit: Any) -> None:
    with pytest.raises(ArgumentError, match=r"CosineLR.*warmup='3ep' is 30 steps.*only 20"):
        fit(CosineLR(warmup="3ep"))
