import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from torch.optim import lr_scheduler

from lightning_dlopt.core import ArgumentError
from lightning_dlopt.schedules import curves

TOTALS = (1, 2, 3, 5, 7, 10, 33, 97, 100, 250, 999)


@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_cosine_is_torchs(total: int, floor: float, torch_factors: Any, close: Any) -> None:
    # torch's recursive form drifts by some ulps a step, so its absolute error is allowed for
    expected = torch_factors(
        lambda o: lr_scheduler.CosineAnnealingLR(o, total, eta_min=floor), total + 1
    )
    got = [curves.cosine(step, total, floor) for step in range(total + 1)]
    assert got == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("end", [0.0, 0.25, 3.0])
def test_linear_is_torchs_or_the_straight_line(
    total: int, end: float, torch_factors: Any, close: Any
) -> None:
    line = [(total - step + end * step) / total for step in range(total + 1)]
    assert [curves.linear(step, total, end) for step in range(total + 1)] == close(line)
    if end <= 1:
        expected = torch_factors(
            lambda o: lr_scheduler.LinearLR(o, 1.0, end, total_iters=total), total + 1
        )
        assert line == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.7])
def test_polynomial_is_torchs(total: int, power: float, torch_factors: Any) -> None:
    expected = torch_factors(lambda o: lr_scheduler.PolynomialLR(o, total, power), total + 1)
    got = [curves.polynomial(step, total, power) for step in range(total + 1)]
    assert got == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9, 2.0])
@pytest.mark.parametrize("every", [1, 3, 7, 10])
def test_step_ladder_is_torchs(gamma: float, every: int, torch_factors: Any, close: Any) -> None:
    expected = torch_factors(lambda o: lr_scheduler.StepLR(o, every, gamma), 60)
    assert [curves.step_decay(step, every, gamma) for step in range(60)] == close(expected)


@pytest.mark.parametrize("milestones", [[1], [3, 4], [10, 20, 59], [70]])
def test_multi_step_is_torchs(milestones: list[int], torch_factors: Any, close: Any) -> None:
    expected = torch_factors(lambda o: lr_scheduler.MultiStepLR(o, milestones, 0.3), 60)
    assert [curves.multi_step(step, milestones, 0.3) for step in range(60)] == close(expected)


@pytest.mark.parametrize("gamma", [0.5, 0.97])
def test_exponential_is_torchs(gamma: float, torch_factors: Any, close: Any) -> None:
    expected = torch_factors(lambda o: lr_scheduler.ExponentialLR(o, gamma), 50)
    got = [curves.exponential_decay(step, 1, gamma) for step in range(50)]
    assert got == close(expected)
    grown = torch_factors(lambda o: lr_scheduler.ExponentialLR(o, 1 / gamma), 50)
    assert [curves.exponential_growth(step, 1, 1 / gamma) for step in range(50)] == close(grown)


@pytest.mark.parametrize(("period", "multiplier"), [(1, 1), (4, 1), (3, 2), (5, 3)])
def test_restarts_are_torchs(period: int, multiplier: int, torch_factors: Any, close: Any) -> None:
    expected = torch_factors(
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, period, multiplier, eta_min=0.1), 100
    )
    got = [curves.cosine_restarts(step, period, multiplier, 0.1) for step in range(100)]
    assert got == close(expected)


@pytest.mark.parametrize("period", [10, 100, 1000])
@pytest.mark.parametrize("multiplier", ["11/10", "3/2", "13/10", "7/4"])
def test_fractional_multiplier_restarts_at_the_exact_step(period: int, multiplier: str) -> None:
    ratio = Fraction(multiplier)
    length, start = Fraction(period), Fraction(0)
    while start < 5000:
        if start.denominator == 1:
            assert curves.cosine_restarts(int(start), period, float(ratio)) == pytest.approx(1)
        start, length = start + length, length * ratio


@pytest.mark.parametrize("half", [1, 2, 5, 8])
def test_cyclic_is_torchs_triangle(half: int, torch_factors: Any) -> None:
    def make(optimizer: Any) -> Any:
        return lr_scheduler.CyclicLR(optimizer, 0.2, 1.5, half, cycle_momentum=False)

    got = [curves.cyclic(step, 2 * half, 0.2, 1.5) for step in range(60)]
    # torch adds a 1 to the phase and so loses some digits
    assert got == pytest.approx(torch_factors(make, 60), rel=1e-12)


@pytest.mark.parametrize("total", [2, 3, 10, 47, 100, 333])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_one_cycle_is_torchs(total: int, share: float, torch_factors: Any) -> None:
    peak = max(1, int(share * total))  # torch divides by zero where the rise has no step

    def make(optimizer: Any) -> Any:
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=1.0,
            total_steps=total + 1,
            pct_start=(peak + 1) / (total + 1),
            cycle_momentum=False,
            div_factor=25,
            final_div_factor=1e4,
        )

    got = [curves.one_cycle(step, total, peak / total) for step in range(total)]
    assert got == pytest.approx(torch_factors(make, total), rel=1e-10)
    assert curves.one_cycle(total, total, peak / total) == pytest.approx(4e-6, rel=1e-12)


def test_stable_decay_by_hand(close: Any) -> None:
    got = [curves.stable_decay(step, 10, 4, 0.2) for step in range(12)]
    assert got == close([1, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2])


def test_stable_decay_without_a_decay_is_stable() -> None:
    assert [curves.stable_decay(step, 3, 0, 0.5) for step in range(5)] == [1, 1, 1, 0.5, 0.5]


def test_piecewise_by_hand(close: Any) -> None:
    table = ([4, 8], [0.5, 0.1])
    steps = [0, 2, 3, 4, 6, 8, 20]
    jumps = [curves.piecewise(step, *table) for step in steps]
    assert jumps == close([1, 1, 1, 0.5, 0.5, 0.1, 0.1])
    lines = [curves.piecewise(step, *table, interpolate="linear") for step in steps]
    assert lines == close([1, 0.75, 0.625, 0.5, 0.3, 0.1, 0.1])
    waves = [curves.piecewise(step, *table, interpolate="cosine") for step in steps]
    at_three = 0.75 + 0.25 * math.cos(math.pi * 3 / 4)
    assert waves == close([1, 0.75, at_three, 0.5, 0.3, 0.1, 0.1])


def test_piecewise_with_a_point_at_the_start() -> None:
    assert curves.piecewise(0, [0, 2], [0.3, 0.9]) == 0.3
    assert curves.piecewise(1, [0, 2], [0.3, 0.9], "linear") == pytest.approx(0.6)


def test_warm_up_formula(close: Any) -> None:
    for steps in (1, 2, 7, 100):
        expected = [0.2 + 0.8 * (k + 1) / steps for k in range(steps)] + [1.0]
        assert [curves.warm_up(k, steps, 0.2) for k in range(steps + 1)] == close(expected)
    assert curves.warm_up(0, 0) == 1.0


WHOLE_RUN: list[tuple[str, Callable[[float, int], float], float]] = [
    ("cosine", lambda s, t: curves.cosine(s, t, 0.1), 0.1),
    ("linear", lambda s, t: curves.linear(s, t, 0.1), 0.1),
    ("polynomial", lambda s, t: curves.polynomial(s, t, 1.7, 0.1), 0.1),
    ("one_cycle", lambda s, t: curves.one_cycle(s, t, 0.3, 0.04, 0.01), 0.01),
    ("one_cycle at once", lambda s, t: curves.one_cycle(s, t, 0.0, 0.04, 0.01), 0.01),
    ("stable_decay", lambda s, t: curves.stable_decay(s, t, 0.2 * t, 0.1), 0.1),
]


@pytest.mark.parametrize(("name", "curve", "end"), WHOLE_RUN, ids=[row[0] for row in WHOLE_RUN])
@pytest.mark.parametrize("total", [0, *TOTALS])
def test_a_whole_run_curve_is_at_its_end_at_total_and_stays(
    name: str, curve: Callable[[float, int], float], end: float, total: int
) -> None:
    factors = [curve(step, total) for step in range(total + 3)]
    assert factors[total:] == pytest.approx([end] * 3, rel=1e-12)
    peak = factors.index(max(factors))
    assert all(later <= earlier for earlier, later in pairwise(factors[peak:]))
    assert all(end - 1e-15 <= factor <= 1 for factor in factors[peak:])


def test_floor_and_ceiling() -> None:
    assert curves.exponential_decay(1000, 1, 0.1, floor=0.3) == 0.3
    assert curves.exponential_growth(1000, 1, 10.0, ceiling=7.0) == 7.0
    assert curves.exponential_decay(7, 2, 0.5, staircase=True) == 0.125
    assert curves.exponential_growth(7, 2, 2.0, staircase=True) == 8.0


def test_overflow_is_infinite() -> None:
    assert curves.exponential_growth(10**6, 1, 10.0) == math.inf
    assert curves.step_decay(10**6, 1, 10.0) == math.inf


def test_negative_steps_are_refused() -> None:
    with pytest.raises(ArgumentError, match="step=-1"):
        curves.cosine(-1, 10)
