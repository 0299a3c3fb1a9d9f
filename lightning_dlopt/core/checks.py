"""Checks of constructor and function arguments, with one form of message.

``owner`` is what the argument belongs to: the object under construction, or a function's name.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError


def owner_name(owner: object) -> str:
    """Return what a message calls ``owner``: a string as it is, any other object by its class."""
    return owner if isinstance(owner, str) else type(owner).__name__


@lru_cache(maxsize=256)
def _parse_interval(interval: str) -> tuple[float, float, bool, bool]:
    low, high = (float(end) for end in interval[1:-1].split(","))
    return low, high, interval[0] == "[", interval[-1] == "]"


def _inside(value: float, interval: str) -> bool:
    low, high, closed_low, closed_high = _parse_interval(interval)
    above = value >= low if closed_low else value > low
    below = value <= high if closed_high else value < high
    return above and below


def check_number(owner: object, name: str, value: Any, interval: str) -> float:
    """Return ``value`` as a float if it is a real number in ``interval``, such as ``"(0, 1]"``.

    Raises:
        ArgumentTypeError: if it is no number (a bool is none).
        ArgumentError: if it is NaN or outside the interval.

    Example:
        >>> check_number("cosine", "floor", 0, "[0, 1]")
        0.0
        >>> check_number("cosine", "floor", 2, "[0, 1]")
        Traceback (most recent call last):
        ...
        lightning_dlopt.core.errors.ArgumentError: cosine: floor=2 is not in [0, 1]
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentTypeError(
            f"{owner_name(owner)}: {name}={value!r} must be a number in {interval}"
        )
    if math.isnan(value) or not _inside(float(value), interval):
        raise ArgumentError(f"{owner_name(owner)}: {name}={value!r} is not in {interval}")
    return float(value)


def check_integer(owner: object, name: str, value: Any, interval: str) -> int:
    """Return ``value`` if it is an integer in ``interval``; errors as :func:`check_number`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ArgumentTypeError(
            f"{owner_name(owner)}: {name}={value!r} must be an integer in {interval}"
        )
    if not _inside(int(value), interval):
        raise ArgumentError(f"{owner_name(owner)}: {name}={value!r} is not in {interval}")
    return int(value)


def check_integers(owner: object, name: str, values: Any, interval: str) -> list[int]:
    """Return ``values`` as a list if they are a sequence of integers in ``interval``, or raise.

    Example:
        >>> check_integers("MLP", "sizes", 5, "[1, inf)")
        Traceback (most recent call last):
        ...
        lightning_dlopt.core.errors.ArgumentTypeError: MLP: sizes=5 must be integers in [1, inf)
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ArgumentTypeError(
            f"{owner_name(owner)}: {name}={values!r} must be integers in {interval}"
        )
    return [check_integer(owner, name, value, interval) for value in values]


def check_range(owner: object, name: str, value: Any, interval: str) -> tuple[float, float]:
    """Return ``value``, two numbers in ``interval`` of which the first isn't above the second.

    Example:
        >>> check_range("RandomErase", "area", [0.3, 0.1], "(0, 1]")
        Traceback (most recent call last):
        ...
        lightning_dlopt.core.errors.ArgumentError: RandomErase: area=[0.3, 0.1] must hold the \
smaller number first
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ArgumentTypeError(
            f"{owner_name(owner)}: {name}={value!r} must be two numbers in {interval}"
        )
    for number in value:
        if isinstance(number, bool) or not isinstance(number, Real):
            raise ArgumentTypeError(
                f"{owner_name(owner)}: {name}={value!r} must be two numbers in {interval}"
            )
        if math.isnan(number) or not _inside(float(number), interval):
            raise ArgumentError(f"{owner_name(owner)}: {name}={value!r} is not in {interval}")
    if value[0] > value[1]:
        raise ArgumentError(
            f"{owner_name(owner)}: {name}={value!r} must hold the smaller number first"
        )
    return float(value[0]), float(value[1])


def check_choice(owner: object, name: str, value: Any, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``choices``, or raise an ArgumentError that lists them."""
    if not isinstance(value, str) or value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ArgumentError(f"{owner_name(owner)}: {name}={value!r} must be one of {allowed}")
    return value


def check_flag(owner: object, name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False, or raise an ArgumentTypeError."""
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{owner_name(owner)}: {name}={value!r} must be True or False")
    return value


def check_text(owner: object, name: str, value: Any) -> str:
    """Return ``value`` if it is a string that isn't empty, or raise."""
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{owner_name(owner)}: {name}={value!r} must be a string")
    if not value:
        raise ArgumentError(f"{owner_name(owner)}: {name} must not be empty")
    return value
