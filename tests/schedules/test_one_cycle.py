from typing import Any

import pytest
from torch.optim import lr_scheduler

from lightning_dlopt.core import ArgumentError
from lightning_dlopt.schedules import OneCycleLR


def reference(total: int, peak: int, start: float, end: float) -> Any:
    """torch's, with one more step: here the end is reached after the run's last step."""
    return lambda optimizer: lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=total + 1,
        pct_start=(peak + 1) / (total + 1),
        anneal_strategy="cos",
        cycle_momentum=False,
        div_factor=1 / start,
        final_div_factor=start / end,
    )


def test_one_cycle_is_torchs_in_a_trainer(fit: Any, torch_factors: Any, times_rates: Any) -> None:
    expected = torch_factors(reference(20, 6, 0.04, 4e-6), 20)
    got = fit(OneCycleLR()).rates
    assert [first for first, _ in got] == pytest.approx([0.005 * f for f in expected], rel=1e-10)
    assert [last for _, last in got] == pytest.approx([2e-4 * f for f in expected], rel=1e-10)


@pytest.mark.parametrize("total", [2, 3, 11, 50, 101])
@pytest.mark.parametrize("rise", [1, "30%", "50%", "80%"])
def test_one_cycle_is_torchs(total: int, rise: Any, torch_factors: Any) -> None:
    # rounded half up
    peak = rise if isinstance(rise, int) else (total * int(rise[:-1]) + 50) // 100
    schedule = OneCycleLR(rise, start=0.1, end=0.01)
    if peak >= total:
        with pytest.raises(ArgumentError, match=f"rise='{rise}' is {peak} steps"):
            schedule.simulate(total)
    else:
        expected = torch_factors(reference(total, peak, 0.1, 0.01), total)
        assert schedule.simulate(total) == pytest.approx(expected, rel=1e-10)


def test_momentum_is_left_alone(fit: Any) -> None:
    optimizer = fit(OneCycleLR()).trainer.optimizers[0]
    assert [group["momentum"] for group in optimizer.param_groups] == [0, 0]
