import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from lightning_dlopt.core import ArgumentError, ArgumentTypeError, UserError
from lightning_dlopt.core.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_range,
    check_text,
)


class Thing:
    """Owns arguments."""


@pytest.mark.parametrize(
    ("value", "interval", "inside"),
    [
        (0, "[0, 1]", True),
        (0, "(0, 1]", False),
        (1, "[0, 1]", True),
        (1, "[0, 1)", False),
        (0.5, "(0, 1)", True),
        (-0.0, "[0, 1]", True),
        (-1e-300, "[0, inf)", False),
        (1e300, "[0, inf)", True),
        (math.inf, "[0, inf)", False),
        (math.inf, "[1, inf]", True),
        (-math.inf, "(-inf, 0]", False),
        (math.nan, "[-inf, inf]", False),
        (Fraction(1, 4), "[0, 1]", True),
        (np.float32(0.5), "[0, 1]", True),
        (np.int64(1), "[0, 1]", True),
    ],
)
def test_numbers(value: Any, interval: str, inside: bool) -> None:
    if inside:
        got = check_number(Thing(), "x", value, interval)
        assert type(got) is float
        assert got == value
    else:
        with pytest.raises(ArgumentError) as caught:
            check_number(Thing(), "x", value, interval)
        assert str(caught.value) == f"Thing: x={value!r} is not in {interval}"


@pytest.mark.parametrize("value", [True, "1", None, 1j, torch.tensor(0.5), np.bool_(1)], ids=repr)
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        check_number("cosine", "floor", value, "[0, 1]")
    assert str(caught.value) == f"cosine: floor={value!r} must be a number in [0, 1]"


@pytest.mark.parametrize("value", [1.0, True, "3", None, np.float64(2)], ids=repr)
def test_what_is_no_integer(value: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"Thing: n=.* must be an integer in \[0, inf\)"):
        check_integer(Thing(), "n", value, "[0, inf)")


def test_integers() -> None:
    assert type(check_integer(Thing(), "n", np.int64(3), "[0, 5)")) is int
    with pytest.raises(ArgumentError, match=r"Thing: n=5 is not in \[0, 5\)"):
        check_integer(Thing(), "n", 5, "[0, 5)")


def test_choices() -> None:
    assert check_choice(Thing(), "mode", "min", ("min", "max")) == "min"
    for value in ("Min", 3, None, ["min"]):
        with pytest.raises(ArgumentError, match=r"Thing: mode=.* must be one of 'min', 'max'"):
            check_choice(Thing(), "mode", value, ("min", "max"))


def test_flags() -> None:
    assert check_flag(Thing(), "on", False) is False
    for value in (0, 1, "true", None):
        with pytest.raises(ArgumentTypeError, match=r"Thing: on=.* must be True or False"):
            check_flag(Thing(), "on", value)


def test_text() -> None:
    assert check_text(Thing(), "name", "x") == "x"
    with pytest.raises(ArgumentError, match="Thing: name must not be empty"):
        check_text(Thing(), "name", "")
    with pytest.raises(ArgumentTypeError, match="Thing: name=3 must be a string"):
        check_text(Thing(), "name", 3)


@pytest.mark.parametrize(
    ("error", "base"), [(ArgumentError, ValueError), (ArgumentTypeError, TypeError)]
)
def test_errors_are_pythons_own_and_the_users(
    error: Callable[..., Exception], base: type[Exception]
) -> None:
    assert isinstance(error(), base)
    assert isinstance(error(), UserError)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0.5, TypeError, r"Erase: area=0.5 must be two numbers in \(0, 1\]"),
        ("ab", TypeError, r"area='ab' must be two numbers"),
        ([0.1, 0.2, 0.3], TypeError, r"area=\[0.1, 0.2, 0.3\] must be two numbers"),
        ([0.1, True], TypeError, r"must be two numbers"),
        ([0.0, 0.5], ValueError, r"area=\[0.0, 0.5\] is not in \(0, 1\]"),
        ([0.1, float("nan")], ValueError, r"is not in \(0, 1\]"),
        ((0.5, 0.1), ValueError, r"must hold the smaller number first"),
    ],
)
def test_a_range_that_is_none(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_range("Erase", "area", value, "(0, 1]")


def test_a_range() -> None:
    assert check_range("Erase", "area", [1, 1], "(0, 1]") == (1.0, 1.0)
