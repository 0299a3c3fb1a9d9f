from typing import Any

import pytest

from lightning_dlopt.core import ArgumentError, NoEffectWarning
from lightning_dlopt.schedules import WarmupStableDecayLR


def test_three_phases_in_a_trainer(fit: Any, times_rates: Any) -> None:
    expected = [0.2, 0.4, 0.6, 0.8, 1.0] + [1.0] * 11 + [1 - 0.9 * k / 4 for k in range(4)]
    run = fit(WarmupStableDecayLR(warmup="0.5ep", decay="20%", floor=0.1))
    assert run.rates == times_rates(expected)


@pytest.mark.parametrize("total", range(1, 60))
def test_never_lower_than_the_line_and_never_nought_before_the_end(total: int) -> None:
    factors = WarmupStableDecayLR(warmup=0, decay="20%").simulate(total)
    decay = (20 * total + 50) // 100
    expected = [1.0 if left > decay else left / decay for left in range(total, 0, -1)]
    assert factors == pytest.approx(expected, rel=1e-12)


def test_a_decay_that_rounds_to_no_step_trains_at_the_full_rate(fit: Any, times_rates: Any) -> None:
    with pytest.warns(NoEffectWarning, match="the rate stays the same over all 2 steps"):
        run = fit(WarmupStableDecayLR(0, "20%"), max_steps=2)
    assert run.rates == times_rates([1.0, 1.0])


def test_a_longer_run_has_the_same_beginning() -> None:
    short = WarmupStableDecayLR(warmup=4, decay=5).simulate(20)
    long = WarmupStableDecayLR(warmup=4, decay=5).simulate(40)
    assert short[:15] == long[:15]


def test_phases_longer_than_the_run_are_refused(fit: Any) -> None:
    with pytest.raises(ArgumentError, match=r"warmup=15 and decay='50%' are 15 and 10 .* only 20"):
        fit(WarmupStableDecayLR(15, "50%"))
    with pytest.raises(ArgumentError, match=r"warmup=25 is 25 steps, but the run has only 20"):
        fit(WarmupStableDecayLR(25, 1))
