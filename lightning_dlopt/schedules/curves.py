"""The learning-rate curves as plain functions of the step, for anybody's own loop.

Each returns the factor by which the initial rate is multiplied at ``step`` (0 is the first), so
``LambdaLR(optimizer, lambda step: cosine(step, total))`` uses one without Lightning. A curve over
``total`` steps is at its end at ``step=total`` and stays there.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from lightning_dlopt.core.errors import ArgumentError

Interpolation = Literal["none", "linear", "cosine"]


def _share(step: float, total: float) -> float:
    """Return how much of ``total`` steps is over, from 0 to 1."""
    if step < 0 or total < 0:
        raise ArgumentError(f"step={step} and total={total} must not be negative")
    return 1.0 if step >= total else step / total


def _power(base: float, exponent: float) -> float:
    """Return ``base ** exponent``, infinite where Python would raise an OverflowError."""
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


def _half_cosine(share: float) -> float:
    """Fall from 1 to 0 along half a cosine wave."""
    return (1 + math.cos(math.pi * share)) / 2


def constant(step: float) -> float:  # noqa: ARG001
    """Return 1 at every step.

    Example:
        >>> constant(1000)
        1.0
    """
    return 1.0


def warm_up(step: float, steps: float, start: float = 0.0) -> float:
    """Rise from ``start`` to 1 over ``steps`` steps; the first step already moves.

    Example:
        >>> [warm_up(step, 4) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return 1.0 if step + 1 >= steps else start + (1 - start) * (step + 1) / steps


def exponential_decay(
    step: float, every: float, gamma: float, staircase: bool = False, floor: float = 0.0
) -> float:
    """Multiply by ``gamma`` once in ``every`` steps: smoothly, or in stairs; never below ``floor``.

    Example:
        >>> exponential_decay(20, every=10, gamma=0.5)
        0.25
    """
    periods = step / every
    return max(floor, gamma ** (math.floor(periods) if staircase else periods))


def exponential_growth(
    step: float, every: float, gamma: float, staircase: bool = False, ceiling: float = math.inf
) -> float:
    """Multiply by ``gamma`` > 1 once in ``every`` steps, never above ``ceiling``.

    Example:
        >>> exponential_growth(20, every=10, gamma=2.0)
        4.0
    """
    periods = step / every
    return min(ceiling, _power(gamma, math.floor(periods) if staircase else periods))


def step_decay(step: float, every: float, gamma: float = 0.1) -> float:
    """Multiply by ``gamma`` after every ``every`` steps.

    Example:
        >>> step_decay(25, every=10, gamma=0.5)
        0.25
    """
    return _power(gamma, math.floor(step / every))


def multi_step(step: float, milestones: Sequence[float], gamma: float = 0.1) -> float:
    """Multiply by ``gamma`` at each of ``milestones``.

    Example:
        >>> [multi_step(step, [10, 15], gamma=0.5) for step in (9, 10, 15)]
        [1.0, 0.5, 0.25]
    """
    return _power(gamma, sum(step >= milestone for milestone in milestones))


def piecewise(
    step: float,
    milestones: Sequence[float],
    factors: Sequence[float],
    interpolate: Interpolation = "none",
) -> float:
    """Take the factors of a table: each holds from its milestone on, or is reached there.

    Args:
        step: the step.
        milestones: increasing steps.
        factors: one for each milestone; before the first it is 1.
        interpolate: ``"none"`` jumps at each milestone; ``"linear"`` and ``"cosine"`` run between
            the points, from (0, 1) on.

    Example:
        >>> [piecewise(step, [10, 20], [0.5, 0.1]) for step in (0, 10, 25)]
        [1.0, 0.5, 0.1]
        >>> piecewise(5, [10, 20], [0.5, 0.1], interpolate="linear")
        0.75
    """
    points = list(zip(milestones, factors, strict=True))
    if not points or points[0][0] > 0:
        points.insert(0, (0, 1.0))
    for (left, before), (right, after) in pairwise(points):
        if step < right:
            share = _share(step - left, right - left)
            if interpolate == "none":
                return float(before)
            if interpolate == "cosine":
                share = 1 - _half_cosine(share)
            return before + (after - before) * share
    return float(points[-1][1])


def linear(step: float, total: float, end: float = 0.0) -> float:
    """Go from 1 to ``end`` in a straight line.

    Example:
        >>> linear(25, total=100)
        0.75
    """
    return 1 + (end - 1) * _share(step, total)


def polynomial(step: float, total: float, power: float, end: float = 0.0) -> float:
    """Go from 1 to ``end`` as ``(1 - step/total) ** power``.

    Example:
        >>> polynomial(50, total=100, power=2)
        0.25
    """
    return float(end + (1 - end) * (1 - _share(step, total)) ** power)


def cosine(step: float, total: float, floor: float = 0.0) -> float:
    """Fall from 1 to ``floor`` along half a cosine wave.

    Example:
        >>> cosine(0, total=100), cosine(100, total=100, floor=0.1)
        (1.0, 0.1)
    """
    return floor + (1 - floor) * _half_cosine(_share(step, total))


def cosine_restarts(
    step: float, period: float, multiplier: float = 1.0, floor: float = 0.0
) -> float:
    """Fall from 1 to ``floor`` again and again; each period is ``multiplier`` times the last.

    Example:
        >>> [cosine_restarts(step, period=10) for step in (0, 5, 10)]
        [1.0, 0.5, 1.0]
    """
    if multiplier == 1:
        return cosine(step % period, period, floor)
    # a fractional multiplier must not miss the step of a restart by float rounding
    while step >= period or math.isclose(step, period, rel_tol=1e-9):
        step = max(0.0, step - period)
        period *= multiplier
    return cosine(step, period, floor)


def one_cycle(
    step: float, total: float, rise: float = 0.3, start: float = 0.04, end: float = 4e-6
) -> float:
    """Rise from ``start`` to 1 in the first ``rise`` of the run, then fall to ``end``, by cosine.

    Example:
        >>> [one_cycle(step, total=100) for step in (0, 30, 100)]
        [0.04, 1.0, 4e-06]
    """
    share = _share(step, total)
    if share < rise:
        return start + (1 - start) * (1 - _half_cosine(share / rise))
    return cosine(share - rise, 1 - rise, end)


def stable_decay(step: float, total: float, decay: float, floor: float = 0.0) -> float:
    """Stay at 1, then go to ``floor`` in a straight line over the last ``decay`` steps.

    Example:
        >>> [stable_decay(step, total=100, decay=20) for step in (0, 80, 90, 100)]
        [1.0, 1.0, 0.5, 0.0]
    """
    return 1.0 if step < total - decay else linear(step - (total - decay), decay, floor)


def cyclic(step: float, period: float, low: float, high: float) -> float:
    """Go from ``low`` up to ``high`` and back in straight lines, once in ``period`` steps.

    Example:
        >>> [cyclic(step, period=10, low=0.0, high=1.0) for step in (0, 5, 10)]
        [0.0, 1.0, 0.0]
    """
    share = (step % period) / period
    return low + (high - low) * (1 - abs(2 * share - 1))
