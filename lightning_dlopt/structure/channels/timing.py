"""When channels are removed."""

from collections.abc import Callable

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Duration, steps_within


def removals_by(
    owner: object, run: RunLength, at: Duration, every: Duration, steps: int
) -> Callable[[int], int]:
    """Return a function from a step to how many removals are due by it.

    Args:
        owner: in whose name errors are raised.
        run: the run's length.
        at: when the first one is.
        every: between two of them.
        steps: how many there are.

    Raises:
        ArgumentError: if the run ends before the last one.
    """
    begin = steps_within(run, at, owner, "at")
    try:
        spans = every.count(run, begin) if steps > 1 else None
    except ArgumentError as error:
        raise ArgumentError(f"{owner!r}: {error}") from error

    def due(step: int) -> int:
        if step < begin:
            return 0
        return min(steps, 1 + int(spans(step))) if spans is not None else steps

    if run.total is not None and due(run.total) < steps and not run.trial:
        raise ArgumentError(
            f"{owner!r}: the run ends after {run.total} steps, before the last of {steps} removals"
        )
    return due
