"""A study's runs put together in pairs, and the numbers that the pairs give."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean, median, stdev

import numpy as np

from lightning_dlopt.evidence.runs import BASELINE, Point, Run, Study

#: What rounding to float32 may have changed in a value, relative to it.
FLOAT32 = 2.0**-24


def value_of(study: Study, run: Run) -> float | None:
    """Return a run's outcome; None if it failed, by its status or for want of a finite outcome."""
    value = study.value(run)
    return value if value is not None and math.isfinite(value) else None


def failures_of(study: Study, arm: str) -> dict[str, int]:
    """Return how many of an arm's runs failed, by the way they did."""
    counts: dict[str, int] = {}
    for run in study.reported(arm).values():
        if value_of(study, run) is not None:
            continue
        way: str = run.status
        if way == "finished":
            # the run came to its end, but what it was for isn't there
            way = "diverged" if study.outcome in run.metrics else f"no {study.outcome}"
        counts[way] = counts.get(way, 0) + 1
    return counts


def worst_of(study: Study) -> float:
    """Return what a failed run counts as: worse than every outcome of the study.

    It lies one standard deviation of the outcomes beyond the worst of them.
    """
    arms = [BASELINE, *(run.arm for run in study.runs)]
    runs = [run for arm in dict.fromkeys(arms) for run in study.reported(arm).values()]
    values = [value for run in runs if (value := value_of(study, run)) is not None]
    if not values:
        return 0.0
    largest = max(abs(value) for value in values)
    step = stdev(values) if len(values) > 1 else 0.0
    if step <= 4 * FLOAT32 * largest:
        step = largest or 1.0
    return min(values) - step if study.larger_is_better else max(values) + step


@dataclass(frozen=True)
class Pairs:
    """The pairs of an arm that have ended in both arms, in order.

    Attributes:
        runs: the arm's run and the baseline's.
        values: their outcomes; None for a failed run.
    """

    runs: list[tuple[Run, Run]]
    values: list[tuple[float | None, float | None]]

    @classmethod
    def of(cls, study: Study, arm: str) -> "Pairs":
        """Return the pairs of an arm."""
        own, base = study.reported(arm), study.reported(BASELINE)
        runs = [(own[pair], base[pair]) for pair in sorted(own.keys() & base.keys())]
        return cls(runs, [(value_of(study, run), value_of(study, other)) for run, other in runs])

    @property
    def finished(self) -> list[tuple[float, float]]:
        """The outcomes of the pairs in which both runs finished."""
        return [(own, base) for own, base in self.values if own is not None and base is not None]

    @property
    def finished_runs(self) -> list[tuple[Run, Run]]:
        """Their runs."""
        return [
            runs for runs, values in zip(self.runs, self.values, strict=True) if None not in values
        ]

    @property
    def only_arm_failed(self) -> int:
        """In how many pairs the arm failed and the baseline didn't."""
        return sum(own is None and base is not None for own, base in self.values)

    @property
    def only_baseline_failed(self) -> int:
        """In how many it was the other way round."""
        return sum(own is not None and base is None for own, base in self.values)

    def differences(self) -> list[float]:
        """Return the differences of the finished pairs, arm minus baseline.

        Metrics are float32 as a rule. Differences that are no larger than its rounding are made
        exactly 0, and those that are equal but for it exactly equal.
        """
        values = self.finished
        differences = [own - base for own, base in values]
        errors = [_error(own, base) for own, base in values]
        if all(abs(d) <= error for d, error in zip(differences, errors, strict=True)):
            return [0.0] * len(differences)
        if max(differences) - min(differences) <= 2 * max(errors):
            return [fmean(differences)] * len(differences)
        return differences

    def differences_with_failures(self, worst: float) -> tuple[list[float], float]:
        """Return the differences of all pairs, a failed run as ``worst``, and their sum's error."""
        values = [
            (worst if own is None else own, worst if base is None else base)
            for own, base in self.values
        ]
        error = sum(_error(own, base) for own, base in values)
        if len(self.finished) == len(values):
            return self.differences(), error
        return [own - base for own, base in values], error

    def ratio(self, number: Callable[[Run], float | None]) -> float | None:
        """Return the median over finished pairs of the arm's number in the baseline's."""
        ratios = [
            own / base
            for run, other in self.finished_runs
            if (own := number(run)) is not None and (base := number(other)) is not None and base > 0
        ]
        return median(ratios) if ratios else None

    def equal_time(self, metric: str) -> float | None:
        """Return the mean difference when the arm is stopped at the time its baseline took.

        That is where the arm's curve is after as many seconds of training as the baseline's whole
        run took, between two validations on the line that joins them, or its end if the arm was
        faster; against the baseline's last.
        """
        differences = []
        for run, other in self.finished_runs:
            points, end = _finite(run.curve), last_value(other, metric)
            if points and points[0].seconds <= other.seconds and end is not None:
                seconds, values = zip(*((one.seconds, one.value) for one in points), strict=True)
                differences.append(float(np.interp(other.seconds, seconds, values)) - end)
        return fmean(differences) if differences else None


def _error(own: float, base: float) -> float:
    return FLOAT32 * (abs(own) + abs(base))


def _finite(curve: Iterable[Point]) -> list[Point]:
    return [point for point in curve if math.isfinite(point.value)]


def last_value(run: Run, metric: str) -> float | None:
    """Return a run's metric at its end: the last of its curve, else what the module logged."""
    if run.curve:
        value: float | None = run.curve[-1].value
    else:
        value = run.metrics.get(metric)
    return value if value is not None and math.isfinite(value) else None


def equal_fingerprints(pairs: Iterable[tuple[str, str]]) -> bool:
    """Return whether all that are known are equal; an empty one isn't known."""
    return all(own == base for own, base in pairs if own and base)


def late_gain(study: Study) -> float | None:
    """Return the baseline's mean gain over the last fifth of its run, if it is above the noise.

    The gain is the metric's, turned so that more is better, from 80 % of the steps (between two
    validations, on the line that joins them) to the last validation. The noise is the standard
    deviation over seeds of the metric at the end.
    """
    gains, ends = [], []
    for run in study.reported(BASELINE).values():
        points = _finite(run.curve)
        if value_of(study, run) is None or not points:
            continue
        ends.append(points[-1].value)
        start = 0.8 * points[-1].step
        if points[0].step <= start:
            steps, values = zip(*((point.step, point.value) for point in points), strict=True)
            gains.append(points[-1].value - float(np.interp(start, steps, values)))
    if len(ends) < 2 or not gains:
        return None
    gain = fmean(gains) if study.larger_is_better else -fmean(gains)
    return gain if gain > stdev(ends) else None
