"""Plans of widths, and bringing modules to them."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from lightning_dlopt.core.errors import CheckpointError
from lightning_dlopt.structure.channels.widths import (
    merge,
    named_tensors,
    plan_between,
    reshape_to,
    structure_of,
)


def net(width: int) -> Any:
    """Layers whose attributes are integers and tuples."""
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.LayerNorm(width))


def plan(before: int, now: int) -> dict[str, Any]:
    """Return the plan from one width to another."""
    return plan_between(structure_of(net(before)), structure_of(net(now)))


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    """Return the shapes of a module's tensors."""
    return {name: tensor.shape for name, tensor in named_tensors(module).items()}


def test_reshapes_attributes_and_tensors_as_the_class_would_build_them() -> None:
    module = net(8)
    reshape_to(module, plan(8, 5))
    assert shapes(module) == shapes(net(5))
    assert repr(module) == repr(net(5))
    assert structure_of(module) == structure_of(net(5))


@pytest.mark.parametrize("width", [8, 7, 5, 3])
def test_any_state_of_the_history_can_be_reached_from_any_other(width: int) -> None:
    module = net(8)
    reshape_to(module, plan(8, width))
    for other in (5, 7, 3):
        reshape_to(module, plan(8, other))
        assert repr(module) == repr(net(other))
        module.load_state_dict(net(other).state_dict())


def test_merged_plans_start_at_the_first_originals() -> None:
    assert merge(plan(8, 6), plan(6, 3)) == plan(8, 3)
    assert merge({}, plan(8, 3)) == plan(8, 3)
    assert merge(plan(8, 3), {}) == plan(8, 3)
    other = plan_between(structure_of(nn.Linear(4, 4)), structure_of(nn.Linear(4, 2)))
    assert merge(other, plan(8, 3))["parts"] == {**other["parts"], **plan(8, 3)["parts"]}


def test_no_change_is_an_empty_plan() -> None:
    assert plan(8, 8) == {}
    module = net(8)
    reshape_to(module, {})
    assert repr(module) == repr(net(8))


def test_keeps_frozen_dtype_marks_and_what_has_its_shape() -> None:
    module = net(8).double()
    module[0].weight.requires_grad_(False)
    module[0].weight.mark = "mine"
    bias = module[0].bias
    reshape_to(module, {"tensors": {"0.weight": [[8, 3, 3, 3], [5, 3, 3, 3]]}})
    weight = module[0].weight
    assert weight.shape == (5, 3, 3, 3)
    assert weight.dtype == torch.float64
    assert not weight.requires_grad
    assert weight.mark == "mine"
    assert module[0].bias is bias


def test_ties_stay_tied() -> None:
    module: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    reshape_to(module, {"tensors": {"0.weight": [[4, 4], [2, 4]], "1.weight": [[4, 4], [2, 4]]}})
    assert module[1].weight is module[0].weight


def test_recurrent_layers_run_after_it() -> None:
    module = nn.LSTM(4, 8, 2, bidirectional=True)
    smaller = nn.LSTM(4, 3, 2, bidirectional=True)
    reshape_to(module, plan_between(structure_of(module), structure_of(smaller)))
    module.load_state_dict(smaller.state_dict())
    values = torch.randn(5, 2, 4)
    assert torch.equal(module(values)[0], smaller(values)[0])
    assert torch.equal(copy.deepcopy(module)(values)[0], smaller(values)[0])


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), "'2'"),
        (nn.Sequential(nn.Linear(3, 8), nn.BatchNorm2d(8), nn.LayerNorm(8)), "no such out_chan"),
        (net(9), r"'0.weight' has shape \[9, 3, 3, 3\].*\[8, 3, 3, 3\].*\[5, 3, 3, 3\]"),
        (
            nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.LayerNorm(8)),
            r"'0.weight' has shape \[8, 1, 3, 3\]",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.LayerNorm(8)),
            "'0.bias' of shape",
        ),
    ],
)
def test_a_plan_of_another_class_is_refused_and_changes_nothing(
    module: nn.Module, message: str
) -> None:
    before, was = shapes(module), structure_of(module)
    with pytest.raises(CheckpointError, match=message):
        reshape_to(module, plan(8, 5))
    assert shapes(module) == before
    assert structure_of(module) == was
