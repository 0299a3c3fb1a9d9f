import pytest
from torch import nn

from lightning_dlopt.core import ArgumentError
from lightning_dlopt.core.named_modules import listing, named_parts, select_modules


def network() -> nn.Module:
    shared = nn.ReLU()
    block = nn.Sequential(nn.Linear(2, 2), shared)
    return nn.ModuleDict({"first": block, "second": nn.Sequential(shared, nn.Tanh())})


def names(*patterns: str) -> list[str]:
    return [name for name, _ in select_modules(network(), patterns)]


def test_parts_come_in_order_and_once() -> None:
    found = [name for name, _ in named_parts(network())]
    assert found == ["first", "first.0", "first.1", "second", "second.1"]


def test_patterns() -> None:
    assert names("second.1", "first.0") == ["first.0", "second.1"]
    assert names("second.0") == ["first.1"]  # found under any name, listed under its first
    assert names("*") == ["first", "first.0", "first.1", "second", "second.1"]
    with pytest.raises(ArgumentError, match=r"'third'; there are first, first\.0"):
        names("first", "third")


def test_a_long_list_is_cut() -> None:
    assert listing([str(i) for i in range(50)]).endswith("39 and 10 more")
    assert listing([str(i) for i in range(40)]).endswith(", 39")
