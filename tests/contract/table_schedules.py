"""The rows of the learning-rate schedules, each with its formula written by hand."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from lightning_dlopt import schedules as s
from tests.contract.row import Row
from tests.contract.run import EPOCHS, Outcome
from tests.contract.tasks import BATCHES, SPECIAL, ManualModule, Task

TOTAL = EPOCHS * BATCHES

Formula = Callable[[int], float]


def rates_follow(formula: Formula) -> Callable[[Outcome, Task], None]:
    """Every group's rate at every step is its own initial rate times the formula's factor."""

    def effect(outcome: Outcome, task: Task) -> None:
        # with several optimizers each of them steps in every batch
        steps_a_batch = len(task.module.rates) if issubclass(task.module, ManualModule) else 1
        assert len(outcome.rates) == TOTAL * steps_a_batch
        for index, rates in enumerate(outcome.rates):
            factor = formula(index // steps_a_batch)
            expected = [base * factor for base in task.module.rates]
            assert rates == pytest.approx(expected, rel=1e-9, abs=1e-15), f"step {index}"

    return effect


def one_cycle(step: int) -> float:
    if step < 6:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * step / 6)) / 2
    return 4e-6 + (1 - 4e-6) * (1 + math.cos(math.pi * (step - 6) / (TOTAL - 6))) / 2


def triangle(step: int) -> float:
    return float(np.interp(step % 6, [0, 3, 6], [0.5, 2.0, 0.5]))


def warm_cosine(step: int) -> float:
    if step < 3:
        return 0.1 + 0.9 * (step + 1) / 3
    return 0.2 + 0.8 * (1 + math.cos(math.pi * (step - 3) / (TOTAL - 3))) / 2


def row(
    cls: type[s.Schedule],
    arguments: Mapping[str, Any],
    neutral: Mapping[str, Any],
    formula: Formula,
    bad: list[tuple[str, Any]],
) -> Row:
    """Return a schedule's row; ``bad`` are (argument, value) put in place of a good one."""
    shared = [
        ("warmup", "soon"),
        ("warmup", -1),
        ("warmup", 0.5),
        ("warmup_start", 1.5),
        ("warmup_start", "low"),
        ("replace", "yes"),
    ]
    return Row(
        technique=cls,
        make=lambda: cls(**arguments),
        neutral=lambda: cls(**neutral),
        effect=rates_follow(formula),
        useless=lambda: cls(**arguments),
        useless_task=SPECIAL["zero_rate"],
        rivals=[lambda: s.StepLR(every=7), lambda: s.CosineLR(floor=0.125)],
        bad=[(name, {**arguments, name: value}) for name, value in [*bad, *shared]],
        refuses=frozenset({"own_scheduler"}),
        mixin=(s.ScheduleMixin, "schedule"),
    )


SCHEDULE_ROWS = [
    row(s.ConstantLR, {"warmup": 3}, {}, lambda k: min(1, (k + 1) / 3), []),
    row(
        s.ExponentialDecayLR,
        {"gamma": 0.5},
        {"gamma": 0.5, "floor": 1.0},
        lambda k: 0.5 ** (k / BATCHES),
        [
            ("gamma", 1.0),
            ("gamma", 0),
            ("every", 0),
            ("every", "ep"),
            ("floor", 2),
            ("staircase", 1),
        ],
    ),
    row(
        s.ExponentialGrowthLR,
        {"gamma": 2.0, "ceiling": 3.0},
        {"gamma": 2.0, "ceiling": 1.0},
        lambda k: min(3.0, 2.0 ** (k / BATCHES)),
        [
            ("gamma", 1.0),
            ("gamma", math.inf),
            ("gamma", math.nan),
            ("ceiling", 0.5),
            ("every", "0%"),
        ],
    ),
    row(
        s.StepLR,
        {"every": "1ep", "gamma": 0.5},
        {"every": 1, "gamma": 1.0},
        lambda k: 0.5 ** (k // BATCHES),
        [("every", "0ep"), ("gamma", 0), ("gamma", "half"), ("gamma", True)],
    ),
    row(
        s.MultiStepLR,
        {"milestones": ["1ep", 15], "gamma": 0.5},
        {"milestones": [2], "gamma": 1.0},
        lambda k: 0.25 if k >= 15 else 0.5 if k >= 6 else 1.0,
        [("milestones", [5, 3]), ("milestones", []), ("milestones", "5ep"), ("gamma", -1)],
    ),
    row(
        s.PiecewiseLR,
        {"milestones": ["50%", "2.5ep"], "factors": [0.5, 0.1], "interpolate": "linear"},
        {"milestones": [3], "factors": [1.0]},
        lambda k: float(np.interp(k, [0, 9, 15], [1.0, 0.5, 0.1])),
        [
            ("milestones", ["2ep", "2ep"]),
            ("factors", [0.5]),
            ("factors", [0.5, -1]),
            ("interpolate", "cubic"),
        ],
    ),
    row(s.LinearLR, {"end": 0.1}, {"end": 1.0}, lambda k: 1 - 0.9 * k / TOTAL, [("end", -0.1)]),
    row(
        s.PolynomialLR,
        {"power": 2, "end": 0.1},
        {"power": 2, "end": 1.0},
        lambda k: 0.1 + 0.9 * (1 - k / TOTAL) ** 2,
        [("power", 0), ("end", math.nan)],
    ),
    row(
        s.CosineLR,
        {"floor": 0.2, "warmup": 3, "warmup_start": 0.1},
        {"floor": 1.0},
        warm_cosine,
        [("floor", 1.5), ("floor", None)],
    ),
    row(
        s.CosineRestartsLR,
        {"period": "1ep"},
        {"period": "1ep", "floor": 1.0},
        lambda k: (1 + math.cos(math.pi * (k % BATCHES) / BATCHES)) / 2,
        [("period", 0), ("multiplier", 0.5), ("floor", -1)],
    ),
    row(
        s.OneCycleLR,
        {"rise": 6},
        {"start": 1.0, "end": 1.0},
        one_cycle,
        [("rise", "130%"), ("start", 2), ("end", -1)],
    ),
    row(
        s.WarmupStableDecayLR,
        {"warmup": 4, "decay": 6},
        {"warmup": 0, "floor": 1.0},
        lambda k: min((k + 1) / 4, 1.0, (TOTAL - k) / 6),
        [("decay", 0), ("floor", 7)],
    ),
    row(
        s.CyclicLR,
        {"period": 6, "low": 0.5, "high": 2.0},
        {"period": 6, "low": 1.0, "high": 1.0},
        triangle,
        [("period", 0), ("low", -1), ("high", 0.1)],
    ),
    row(
        s.PlateauLR,
        # nothing counts as an improvement, so every look after the first halves the rate
        {"monitor": "val_loss", "factor": 0.5, "patience": 0, "threshold": 0.99},
        {"monitor": "val_loss", "patience": 10**6},
        lambda k: 0.5 ** max(0, k // BATCHES - 1),
        [("monitor", ""), ("monitor", 3), ("factor", 1.0), ("patience", -1), ("mode", "up")],
    ),
]
