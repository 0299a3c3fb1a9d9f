from typing import Any

import pytest
from torch.optim import lr_scheduler

from lightning_dlopt.core import ArgumentError, NoEffectWarning
from lightning_dlopt.schedules import MultiStepLR, PiecewiseLR, StepLR


def test_ladder_by_steps_is_torchs(fit: Any, torch_factors: Any, times_rates: Any) -> None:
    expected = torch_factors(lambda o: lr_scheduler.StepLR(o, 6, 0.4), 20)
    assert fit(StepLR(every=6, gamma=0.4)).rates == times_rates(expected)


def test_ladder_by_epochs_is_torchs_stepped_per_epoch(
    fit: Any, torch_factors: Any, times_rates: Any
) -> None:
    per_epoch = torch_factors(lambda o: lr_scheduler.StepLR(o, 2, 0.1), 5)
    expected = [factor for factor in per_epoch for _ in range(10)]
    assert fit(StepLR(every="2ep"), max_epochs=5).rates == times_rates(expected)


def test_share_of_the_run_makes_the_same_number_of_stairs_for_every_length() -> None:
    for total in range(10, 200):
        last = StepLR(every="10%", gamma=0.5).simulate(total)[-1]
        assert last == 0.5**9


def test_milestones_of_every_unit_are_torchs(
    fit: Any, torch_factors: Any, times_rates: Any
) -> None:
    expected = torch_factors(lambda o: lr_scheduler.MultiStepLR(o, [5, 10, 18], 0.3), 20)
    run = fit(MultiStepLR(milestones=[5, "1ep", "90%"], gamma=0.3))
    assert run.rates == times_rates(expected)


def test_milestones_count_from_the_start_in_spite_of_a_warm_up(
    fit: Any, torch_factors: Any, times_rates: Any
) -> None:
    expected = torch_factors(lambda o: lr_scheduler.MultiStepLR(o, [8, 12], 0.3), 20)
    expected[:4] = [0.25, 0.5, 0.75, 1.0]
    assert fit(MultiStepLR([8, 12], 0.3, warmup=4)).rates == times_rates(expected)


@pytest.mark.parametrize("interpolate", ["none", "linear", "cosine"])
def test_piecewise_in_a_trainer(interpolate: Any, fit: Any, times_rates: Any) -> None:
    from math import cos, pi

    def between(share: float) -> float:
        return {"none": 0.0, "linear": share, "cosine": (1 - cos(pi * share)) / 2}[interpolate]

    expected = [1 - 0.6 * between(step / 5) for step in range(5)]
    expected += [0.4 + 0.3 * between(step / 10) for step in range(10)]
    expected += [0.7] * 5
    run = fit(PiecewiseLR([5, "75%"], [0.4, 0.7], interpolate))
    assert run.rates == times_rates(expected)


def test_milestones_past_the_end_are_told(fit: Any) -> None:
    with pytest.warns(NoEffectWarning, match=r"MultiStepLR.*30 = step 30.*\[30\].*20 steps"):
        fit(MultiStepLR([5, 30]))
    with pytest.warns(NoEffectWarning, match=r"100% = step 20"):
        fit(PiecewiseLR([5, "100%"], [0.5, 0.1]))


@pytest.mark.filterwarnings("error::lightning_dlopt.core.NoEffectWarning")
def test_a_point_that_is_approached_up_to_the_end_has_effect(fit: Any, times_rates: Any) -> None:
    run = fit(PiecewiseLR(["50%", "100%"], [1.0, 0.0], "linear"))
    assert run.rates == times_rates([1.0] * 10 + [1 - step / 10 for step in range(10)])
    fit(PiecewiseLR(["50%", "5ep"], [1.0, 0.0], "cosine"))


def test_a_point_behind_one_that_is_not_reached_is_told(fit: Any) -> None:
    with pytest.warns(NoEffectWarning, match=r"\[40\] are not reached"):
        fit(PiecewiseLR([10, 30, 40], [1.0, 0.5, 0.1], "linear"))


def test_milestones_of_mixed_units_out_of_order(fit: Any) -> None:
    with pytest.raises(ArgumentError, match=r"don't increase: 1ep = step 10, 5 = step 5"):
        fit(MultiStepLR(["1ep", 5]))


def test_a_period_shorter_than_a_step_is_refused(fit: Any) -> None:
    with pytest.raises(ArgumentError, match="1% is less than one optimizer step"):
        fit(StepLR(every="1%"))
    with pytest.raises(ArgumentError, match=r"0\.01ep is less than one optimizer step"):
        fit(StepLR(every="0.01ep"))
