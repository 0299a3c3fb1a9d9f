from typing import Any

import pytest
from torch.optim import lr_scheduler

from lightning_dlopt.schedules import CyclicLR


def triangle(half: int) -> Any:
    return lambda o: lr_scheduler.CyclicLR(o, 0.3, 1.7, half, cycle_momentum=False)


@pytest.mark.parametrize(("period", "half"), [(4, 2), ("1ep", 5), ("60%", 6)])
def test_triangles_are_torchs(
    period: Any, half: int, fit: Any, torch_factors: Any, times_rates: Any
) -> None:
    expected = torch_factors(triangle(half), 20)
    assert fit(CyclicLR(period, 0.3, 1.7)).rates == times_rates(expected)


def test_cycles_begin_after_the_warm_up(torch_factors: Any, close: Any) -> None:
    expected = [0.5, 1.0, *torch_factors(triangle(3), 12)]
    assert CyclicLR(6, 0.3, 1.7, warmup=2).simulate(14) == close(expected)
