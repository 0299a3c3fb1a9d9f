"""Modules that return the same optimizer object in every fit."""

from typing import Any

import pytest

from lightning_dlopt.schedules import LinearLR, StepLR


@pytest.fixture(name="keeping")
def _keeping(tiny: Any) -> Any:
    class Keeping(tiny):  # type: ignore[misc]
        kept: Any = None

        def configure_optimizers(self) -> Any:
            self.kept = self.kept or super().configure_optimizers()
            return self.kept

    return Keeping()


@pytest.mark.parametrize("end", [0.0, 0.1])
def test_a_second_run_starts_from_the_initial_rate(
    end: float, keeping: Any, fit: Any, times_rates: Any
) -> None:
    expected = times_rates([1 + (end - 1) * step / 20 for step in range(20)])
    assert fit(LinearLR(end), module=keeping).rates == expected
    assert fit(LinearLR(end), module=keeping).rates == expected


def test_a_rate_that_was_set_in_between_counts(keeping: Any, fit: Any) -> None:
    fit(StepLR(10, 0.5), module=keeping)
    keeping.kept.param_groups[0]["lr"] = 0.75
    rates = fit(StepLR(10, 0.5), module=keeping).rates
    assert [step[0] for step in rates] == [0.75] * 10 + [0.375] * 10
