from typing import Any

import pytest
import torch
from torch import nn

from lightning_dlopt.core import ArgumentError, ArgumentTypeError, select_parameters
from lightning_dlopt.core.parameters import check_selection, plain_name


class Net(nn.Module):
    """A tied, a frozen, a normed and a plain part."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.conv = nn.Conv1d(3, 3, 2)
        self.norm = nn.BatchNorm1d(3)
        self.frozen = nn.Linear(3, 3)
        self.frozen.requires_grad_(False)
        self.decoder = nn.Linear(3, 5)
        self.decoder.weight = self.embedding.weight


def names(selection: Any, module: nn.Module | None = None) -> list[str]:
    return [name for name, _ in select_parameters(Net() if module is None else module, selection)]


def test_weights_are_trainable_tensors_of_two_or_more_dimensions() -> None:
    assert names("weights") == ["embedding.weight", "conv.weight"]


def test_all_lists_each_once() -> None:
    assert names("all") == [
        "embedding.weight",
        "conv.weight",
        "conv.bias",
        "norm.weight",
        "norm.bias",
        "decoder.bias",
    ]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["conv.*"], ["conv.weight", "conv.bias"]),
        (("*.bias", "conv.*"), ["conv.weight", "conv.bias", "norm.bias", "decoder.bias"]),
        (["decoder.weight"], ["embedding.weight"]),  # found under any of its names
        (["frozen.*"], []),
        (["[cn]on*.weight"], ["conv.weight"]),
    ],
)
def test_patterns(patterns: Any, expected: list[str]) -> None:
    assert names(patterns) == expected


@pytest.mark.parametrize("pattern", ["Conv.*", "conv", "x*"])
def test_a_pattern_without_a_match_lists_the_names(pattern: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        names(["conv.*", pattern])
    assert repr(pattern) in str(caught.value)
    assert "embedding.weight, conv.weight" in str(caught.value)


def test_the_tensors_are_the_modules_own() -> None:
    net = Net()
    assert select_parameters(net, ["decoder.weight"])[0][1] is net.embedding.weight


def test_wrappers_leave_no_trace_in_names() -> None:
    assert names(["conv.weight"], torch.compile(Net())) == ["conv.weight"]
    assert plain_name("_fsdp_wrapped_module.a._orig_mod.b") == "a.b"


def test_a_module_without_parameters() -> None:
    assert names("all", nn.ReLU()) == []
    with pytest.raises(ArgumentError, match="no parameters"):
        names(["x"], nn.ReLU())


@pytest.mark.parametrize("value", ["conv.*", "", "Weights"])
def test_unknown_words(value: str) -> None:
    with pytest.raises(ArgumentError, match=f"L1: parameters={value!r} must be 'weights', 'all'"):
        check_selection("L1", "parameters", value)


@pytest.mark.parametrize("value", [3, None, [1], ["a", None], {"a"}])
def test_wrong_types(value: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"L1: parameters=.* list of name patterns"):
        check_selection("L1", "parameters", value)


def test_an_empty_list() -> None:
    with pytest.raises(ArgumentError, match="L1: parameters must hold at least one"):
        check_selection("L1", "parameters", [])


def test_a_lazy_parameter_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"0\.weight belongs to a lazy module"):
        select_parameters(nn.Sequential(nn.LazyLinear(3)))
