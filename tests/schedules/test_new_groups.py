"""Param groups that are added in the middle of a run."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_dlopt.schedules import LinearLR


class Unfreeze(Callback):
    """Adds a group at the tenth step, as fine-tuning callbacks do."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *arguments: Any) -> None:
        if trainer.global_step == 10:
            late = torch.nn.Parameter(torch.zeros(1))
            trainer.optimizers[0].add_param_group({"params": [late], "lr": 0.5})


def test_a_group_that_comes_late_follows_the_curve_from_its_own_rate(fit: Any) -> None:
    run = fit(LinearLR(), Unfreeze())
    assert len(run.rates[9]) == 2
    factors = [1 - step / 20 for step in range(20)]
    # it comes with the rate it was given, and follows from the next step on
    assert run.rates[10][2] == 0.5
    for step in range(11, 20):
        assert run.rates[step][2] == pytest.approx(0.5 * factors[step], rel=1e-12)
        assert run.rates[step][0] == pytest.approx(0.005 * factors[step], rel=1e-12)
