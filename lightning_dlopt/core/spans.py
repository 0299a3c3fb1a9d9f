"""Spans of training: optimizer steps (500), epochs ("5ep"), shares of the run ("30%")."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from lightning_dlopt.core.checks import owner_name
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError
from lightning_dlopt.core.run_length import RunLength, round_half_up

#: What a constructor takes: an int is steps, a string names its unit.
Span: TypeAlias = int | str

_FORMS = 'allowed are steps (500), epochs ("5ep") and a share of the run ("30%")'
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*(ep|%)")


@dataclass(frozen=True)
class Duration:
    """A parsed span, not yet resolved against a run.

    Attributes:
        amount: how many units; never negative.
        unit: ``"step"``, ``"ep"`` (epochs) or ``"%"`` (of the whole run).
    """

    amount: float
    unit: Literal["step", "ep", "%"]

    def __str__(self) -> str:
        return f"{self.amount:g}" + ("" if self.unit == "step" else self.unit)

    def steps(self, run: RunLength) -> int:
        """Return the span in optimizer steps of ``run``, rounded to the nearest.

        Raises:
            ArgumentError: if the run doesn't know its epochs or its end, and the span needs them.

        Example:
            >>> run = RunLength(total=1000, epoch_batches=100)
            >>> [parse_span(span).steps(run) for span in (7, "2.5ep", "30%")]
            [7, 250, 300]
        """
        if self.unit == "step":
            return int(self.amount)
        if self.unit == "ep":
            return run.step_at(self.amount)
        return round_half_up(known_total(run, f"{self}") * self.amount / 100)

    def count(self, run: RunLength, begin: int = 0) -> Callable[[int], float]:
        """Return a function that says how many of this span fit between ``begin`` and a step.

        Epochs of different length (``GradientAccumulationScheduler``) count as epochs, and a span
        that isn't a whole number of steps isn't rounded: the error would add up.

        Raises:
            ArgumentError: if the span is shorter than one step of ``run``, unless that is a trial.
        """
        if self.steps(run) < 1 and not run.trial:
            raise ArgumentError(f"a span of {self} is less than one optimizer step of this run")
        if self.unit == "ep" and len(run.accumulation) > 1:
            before = run.epoch_at(begin)
            return lambda step: _whole_if_close((run.epoch_at(step) - before) / self.amount)
        steps = self.amount
        if self.unit == "ep":
            steps *= run.step_at(1)
        elif self.unit == "%":
            steps *= known_total(run, f"{self}") / 100
        return lambda step: _whole_if_close((step - begin) / steps)


def _whole_if_close(count: float) -> float:
    # a step that ends a span must count whole in spite of float rounding
    whole = round(count)
    return whole if math.isclose(count, whole, rel_tol=1e-12, abs_tol=1e-12) else count


def known_total(run: RunLength, what: str) -> int:
    """Return the run's steps, or raise an ArgumentError saying that ``what`` needs its end."""
    if run.total is None:
        raise ArgumentError(
            f"{what} needs a run of known length, and this one has no end that is known "
            "beforehand: set the Trainer's max_steps, or max_epochs with data that have a length "
            "(under manual optimization: max_epochs)"
        )
    return run.total


def parse_span(value: Any, owner: object = "parse_span", name: str = "span") -> Duration:
    """Parse a span of training.

    Args:
        value: an int (optimizer steps), ``"5ep"`` (epochs, also ``"0.5ep"``) or ``"30%"`` (of the
            whole run, at most 100 %).
        owner: what the argument belongs to, for the message.
        name: the argument's name, for the message.

    Raises:
        ArgumentError: if the text has another form, or the number is negative or above 100 %.
        ArgumentTypeError: if it is neither an int nor a string.

    Example:
        >>> parse_span("5ep")
        Duration(amount=5.0, unit='ep')
        >>> parse_span("5 miles")
        Traceback (most recent call last):
        ...
        lightning_dlopt.core.errors.ArgumentError: parse_span: span='5 miles' is no span of \
training; allowed are steps (500), epochs ("5ep") and a share of the run ("30%")
    """
    problem = f"{owner_name(owner)}: {name}={value!r} is no span of training; {_FORMS}"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ArgumentTypeError(problem)
    if isinstance(value, str) and not value.strip().isdecimal():
        match = _PATTERN.fullmatch(value.strip())
        if match is None or (match[2] == "%" and float(match[1]) > 100):
            raise ArgumentError(problem)
        return Duration(float(match[1]), "ep" if match[2] == "ep" else "%")
    if int(value) < 0:
        raise ArgumentError(problem)
    return Duration(int(value), "step")


def parse_period(value: Any, owner: object, name: str) -> Duration:
    """Parse a span that must not be empty; errors as :func:`parse_span`."""
    span = parse_span(value, owner, name)
    if span.amount == 0:
        raise ArgumentError(f"{owner_name(owner)}: {name}={value!r} must be longer than nothing")
    return span


def steps_within(run: RunLength, span: Duration, owner: object, name: str) -> int:
    """Return a span in optimizer steps, or raise an ArgumentError if the run is shorter.

    Args:
        run: what it must fit into; a trial needn't be long enough.
        span: what the argument was parsed to.
        owner: the technique, for the message.
        name: the argument's name there.

    Example:
        >>> steps_within(RunLength(total=10), parse_span("50%"), "warm", "span")
        5
    """
    try:
        steps = span.steps(run)
    except ArgumentError as error:
        raise ArgumentError(f"{owner!r}: {error}") from error
    if run.total is not None and steps > run.total and not run.trial:
        raise ArgumentError(
            f"{owner!r}: {name}={getattr(owner, name, str(span))!r} is {steps} steps, but the run "
            f"has only {run.total}"
        )
    return steps
