from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch

from lightning_dlopt.core import ArgumentTypeError, TechniqueError
from lightning_dlopt.core.batch import (
    check_key,
    fields_of,
    find_key,
    get_field,
    get_tensor,
    replace_fields,
)

X, Y, NEW = torch.tensor([1.0]), torch.tensor([2]), torch.tensor([3.0])


class Named(NamedTuple):
    y: Any
    x: Any


@dataclass
class Data:
    labels: Any
    pixel_values: Any


@dataclass(frozen=True)
class Frozen:
    inputs: Any
    targets: Any

    def __post_init__(self) -> None:
        if self.inputs is NEW:
            raise AssertionError("a copy isn't constructed anew")


class Keyed(dict):  # type: ignore[type-arg]
    """As libraries subclass it."""


BATCHES = {
    "tuple": (X, Y),
    "longer tuple": (X, Y, 7),
    "list": [X, Y],
    "dict": {"x": X, "y": Y, "id": 7},
    "dict subclass": Keyed(image=X, label=Y),
    "ordered dict": OrderedDict(input=X, target=Y),
    "named tuple": Named(y=Y, x=X),
    "dataclass": Data(labels=Y, pixel_values=X),
    "frozen dataclass": Frozen(inputs=X, targets=Y),
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_found_and_replaced(batch: Any) -> None:
    assert get_tensor(batch, "input") is X
    assert get_tensor(batch, "target") is Y
    twin = replace_fields(batch, {find_key(batch, "input"): NEW})
    assert type(twin) is type(batch)
    assert get_tensor(twin, "input") is NEW
    assert get_tensor(twin, "target") is Y
    assert get_tensor(batch, "input") is X
    if isinstance(batch, dict):
        assert list(twin) == list(batch)


def test_names_of_ones_own_come_before_the_usual_ones() -> None:
    first = ("input_ids", "tokens")
    assert find_key({"x": X, "tokens": Y}, "input", first=first) == "tokens"
    assert find_key({"x": X}, "input", first=first) == "x"
    assert find_key({"x": X, "tokens": Y}, "input", "x", first=first) == "x"
    with pytest.raises(TechniqueError, match="its input isn't clear"):
        find_key({"input_ids": X, "tokens": Y}, "input", first=first)


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_all_fields(batch: Any) -> None:
    fields = fields_of(batch)
    assert fields
    assert all(get_field(batch, key) is value for key, value in fields.items())
    assert any(value is X for value in fields.values())
    assert fields_of(X) == {}


def test_the_key_that_is_given_wins() -> None:
    assert find_key((X, Y, X), "target", 2) == 2
    assert find_key((X, Y), "target", -1) == -1
    assert find_key({"x": X, "other": Y}, "input", "other") == "other"
    assert get_field(Named(1, 2), find_key(Named(1, 2), "input", 0)) == 1
    assert replace_fields(Named(1, 2), {0: 5}) == Named(5, 2)


@pytest.mark.parametrize(
    ("batch", "key", "message"),
    [
        (
            {"a": X, "b": Y},
            None,
            r"the keys 'a', 'b', and its input isn't clear: say by input_key=",
        ),
        ({"x": X, "image": X}, None, r"'x', 'image', and its input isn't clear"),
        ({"x": X}, "z", r"the keys 'x', and input_key='z' isn't in it"),
        ((X, Y), 5, r"a tuple, has 2 items, and input_key=5 isn't in it"),
        ((X, Y), "x", r"input_key='x' isn't in it"),
        (Named(X, Y), "z", r"the keys 'y', 'x'"),
        ((), None, r"0 items"),
        (X, None, r"a Tensor, has no fields"),
        ({"x": "text"}, None, r"at 'x' is a str, not a tensor"),
    ],
)
def test_what_is_unclear_is_told(batch: Any, key: Any, message: str) -> None:
    with pytest.raises(TechniqueError, match=message):
        get_tensor(batch, "input", key, "Someone")


def test_keys_are_checked() -> None:
    assert check_key("f", "input_key", "x") == "x"
    assert check_key("f", "input_key", None) is None
    for bad in (True, 1.5, ["x"]):
        with pytest.raises(ArgumentTypeError, match="f: input_key="):
            check_key("f", "input_key", bad)
