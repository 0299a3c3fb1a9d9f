"""How many weights can be pruned, found by halving."""

import math

import pytest
import torch

from lightning_dlopt.evidence.advise.prunable_share import prunable_share


def test_weights_that_say_nothing_are_prunable() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 64, generator=generator)
    weight = torch.randn(64, generator=generator) * 1e-6
    weight[:16] = torch.linspace(1, 2, 16)  # a quarter of them works
    targets = inputs @ weight + 0.1 * torch.randn(200, generator=generator)

    def measure() -> float:
        return float((inputs @ weight - targets).square().mean())

    share, loss = prunable_share([weight], measure, 1.01 * measure(), steps=8)
    assert share == 0.75
    assert loss <= 1.01 * measure()
    # by hand: of every share
    order = weight.abs().argsort()
    good = []
    for count in range(65):
        pruned = weight.clone()
        pruned[order[:count]] = 0
        if float((inputs @ pruned - targets).square().mean()) <= 1.01 * measure():
            good.append(count / 64)
    assert max(good) == share


def test_over_several_tensors_and_the_weights_come_back() -> None:
    one, two = torch.tensor([[0.1, 2.0]]), torch.tensor([3.0, 0.2])
    before = one.clone(), two.clone()
    share, loss = prunable_share([one, two], lambda: 10 - float(one.sum() + two.sum()), 5.2, 4)
    assert share == 0.5
    assert loss == pytest.approx(5.0)
    assert torch.equal(one, before[0])
    assert torch.equal(two, before[1])


def test_the_weights_come_back_after_an_error() -> None:
    weight, calls = torch.tensor([1.0, 2.0]), []

    def measure() -> float:
        calls.append(weight.tolist())
        if len(calls) == 1:
            raise RuntimeError("no")
        return 1.0

    with pytest.raises(RuntimeError, match="no"):
        prunable_share([weight], measure, 1.0)
    assert calls == [[0.0, 2.0]]
    assert weight.tolist() == [1.0, 2.0]


def test_a_share_that_fails_leaves_nothing_for_the_next() -> None:
    weight = torch.cat([torch.zeros(40), torch.ones(24)])
    assert prunable_share([weight], lambda: 24 - float(weight.sum()), 0.5)[0] == 40 / 64


def test_nothing_can_go_where_everything_counts() -> None:
    weight = torch.ones(64)
    share, loss = prunable_share([weight], lambda: 65 - float(weight.sum()), 1.5)
    assert share == 0.0
    assert math.isnan(loss)


def test_a_loss_that_is_not_a_number_is_no_success() -> None:
    weight = torch.ones(4)
    assert prunable_share([weight], lambda: 1.0 if weight.all() else math.nan, 2.0)[0] == 0.0
