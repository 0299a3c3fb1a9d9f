from collections import UserDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from lightning_dlopt.core import ArgumentError, ArgumentTypeError
from lightning_dlopt.core.batch import check_key
from lightning_dlopt.core.sample_count import count_samples

Pair = namedtuple("Pair", ["x", "y"])
x, y = torch.zeros(5, 3), torch.zeros(5)


@dataclass
class Record:
    x: torch.Tensor
    y: torch.Tensor
    note: str = "none"


@pytest.mark.parametrize(
    "batch",
    [
        x,
        (x, y),
        [x, y],
        {"x": x, "y": y},
        UserDict(x=x, y=y),
        Pair(x, y),
        Record(x, y),
        {"x": x, "temperature": torch.tensor(1.0), "split": "train", "none": None},
        ([x, torch.zeros(5, 7)], y),  # two inputs
        {"inputs": {"ids": x, "mask": x}, "y": y},
        ([torch.zeros(3, 4)] * 5, [{"boxes": torch.zeros(2, 4)}] * 5),  # one entry a sample
        (x, ["a", "b", "c", "d", "e"]),
        (x, Pair(y, y)),
    ],
)
def test_forms_of_batches(batch: Any) -> None:
    assert count_samples(batch) == 5


@pytest.mark.parametrize(
    "batch",
    [
        (x, torch.zeros(7)),  # such as the nodes and graphs of a graph batch
        {"x": x, "edges": torch.zeros(2, 9)},
        (torch.tensor(1.0), "text"),
        object(),
        None,
        [],
        ([torch.zeros(3, 4)] * 5, [torch.zeros(3, 4)] * 5),  # five samples, or five inputs of three
    ],
)
def test_in_doubt_it_says_so(batch: Any) -> None:
    with pytest.raises(ArgumentError, match=r"can't tell how many samples .*input_key="):
        count_samples(batch)


def test_the_message_lists_the_fields() -> None:
    with pytest.raises(ArgumentError, match=r"'x': Tensor\(5, 3\), 'edges': Tensor\(2, 9\)"):
        count_samples({"x": x, "edges": torch.zeros(2, 9)})


@pytest.mark.parametrize(
    ("batch", "key"),
    [
        ((x, torch.zeros(7)), 0),
        ({"x": x, "edges": torch.zeros(2, 9)}, "x"),
        (Pair(torch.zeros(7), y), "y"),
        (Record(x, torch.zeros(7)), "x"),
        ((torch.zeros(7), [{}] * 5), 1),
    ],
)
def test_a_key_says_which_field_counts(batch: Any, key: Any) -> None:
    assert count_samples(batch, key) == 5


@pytest.mark.parametrize(
    ("batch", "key"), [((x,), 3), ({"x": x}, "z"), (Pair(x, y), "z"), (x, "q")]
)
def test_a_key_that_is_not_there(batch: Any, key: Any) -> None:
    with pytest.raises(ArgumentError, match=f"input_key={key!r}"):
        count_samples(batch, key)


def test_check_key() -> None:
    assert [check_key("owner", "input_key", value) for value in (None, 0, "x")] == [None, 0, "x"]
    for bad in (True, 1.5, ("x",)):
        with pytest.raises(ArgumentTypeError, match="owner: input_key"):
            check_key("owner", "input_key", bad)
