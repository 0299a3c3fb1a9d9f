"""Points in training that a schedule counts from its start."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from lightning_dlopt.core.checks import owner_name
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Duration, parse_span
from lightning_dlopt.core.technique import Technique


def parse_milestones(milestones: Any, owner: object) -> list[Duration]:
    """Parse a list of spans; those of one unit must increase."""
    if isinstance(milestones, str) or not isinstance(milestones, Sequence):
        raise ArgumentTypeError(
            f"{owner_name(owner)}: milestones={milestones!r} must be a list of spans"
        )
    if not milestones:
        raise ArgumentError(f"{owner_name(owner)}: milestones must hold at least one span")
    parsed = [parse_span(milestone, owner, "milestones") for milestone in milestones]
    for unit in ("step", "ep", "%"):
        amounts = [span.amount for span in parsed if span.unit == unit]
        if any(left >= right for left, right in pairwise(amounts)):
            raise ArgumentError(
                f"{owner_name(owner)}: milestones={list(milestones)!r} must be increasing"
            )
    return parsed


def resolve_milestones(
    owner: Technique, milestones: Sequence[Duration], run: RunLength, *, approached: bool = False
) -> list[int]:
    """Return the milestones in steps of ``run``; warn of those that change nothing in it.

    Args:
        owner: the schedule.
        milestones: the parsed milestones.
        run: the run's length.
        approached: a milestone already acts from the one before it on, as in interpolation.

    Raises:
        ArgumentError: if milestones of different units turn out not to increase.
    """
    steps = [milestone.steps(run) for milestone in milestones]
    shown = ", ".join(f"{span} = step {step}" for span, step in zip(milestones, steps, strict=True))
    if run.trial:
        return sorted(steps)
    if any(left > right for left, right in pairwise(steps)):
        raise ArgumentError(f"{owner!r}: in this run the milestones don't increase: {shown}")
    begins = [0, *steps[:-1]] if approached else steps
    late = [
        step
        for begin, step in zip(begins, steps, strict=True)
        if run.total is not None and begin >= run.total
    ]
    if late:
        owner.warn_no_effect(
            f"of the milestones {shown}, {late} are not reached within the run's {run.total} steps"
        )
    return steps
