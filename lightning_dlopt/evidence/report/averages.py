"""Means of curves over seeds."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_dlopt.evidence.runs import Run


@dataclass(frozen=True)
class Course:
    """The mean course of an arm's finished runs.

    Attributes:
        steps: optimizer steps, increasing.
        seconds: of training until then, mean over the runs.
        mean: of the metric over the runs.
        spread: its standard deviation over the runs; zeros if there is but one.
        runs: how many there are.
    """

    steps: Any
    seconds: Any
    mean: Any
    spread: Any
    runs: int


def average(runs: list[Run]) -> Course | None:
    """Return the mean course of the finished runs; None if no validation was kept.

    Between a run's validations its course is a straight line; the mean reaches as far as every
    run does.
    """
    columns = []
    for run in runs:
        kept = {p.step: p for p in run.curve if math.isfinite(p.value)}
        if run.status == "finished" and kept:
            points = [kept[step] for step in sorted(kept)]
            columns.append(np.array([(p.step, p.seconds, p.value) for p in points], float).T)
    if not columns:
        return None
    first, last = max(c[0][0] for c in columns), min(c[0][-1] for c in columns)
    steps = np.unique(np.concatenate([column[0] for column in columns]))
    steps = steps[(steps >= first) & (steps <= last)]
    if not len(steps):
        steps = np.array([last])
    values = np.array([np.interp(steps, column[0], column[2]) for column in columns])
    seconds = np.array([np.interp(steps, column[0], column[1]) for column in columns])
    spread = values.std(axis=0, ddof=1) if len(columns) > 1 else np.zeros(len(steps))
    return Course(steps, seconds.mean(axis=0), values.mean(axis=0), spread, len(columns))


def find_limits(center: list[float], others: list[float], reach: float) -> tuple[float, float]:
    """Return limits of an axis that shows ``center`` wholly and of ``others`` what is near.

    What is further from the center than ``reach`` times its range (or that of the middle half of
    all values, if larger) is cut off, so that one arm that went wrong doesn't squeeze the rest.
    """
    values = np.array([v for v in [*center, *others] if math.isfinite(v)])
    if not len(values):
        return 0.0, 1.0
    middle = np.array([v for v in center if math.isfinite(v)])
    middle = middle if len(middle) else values
    quarter, rest = np.quantile(values, [0.25, 0.75])
    span = max(float(np.ptp(middle)), float(rest - quarter))
    low = max(float(values.min()), float(middle.min()) - reach * span)
    high = min(float(values.max()), float(middle.max()) + reach * span)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room
