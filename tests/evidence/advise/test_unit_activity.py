"""Units that say the same whatever they are shown."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt.evidence.advise.unit_activity import WatchUnits


def watched(module: nn.Module, *batches: Tensor) -> dict[str, list[bool]]:
    with torch.no_grad(), WatchUnits(module) as watch:
        for batch in batches:
            watch.start_batch()
            module(batch)
    return {one.layer: one.constant.tolist() for one in watch.activities()}


def test_dead_features_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(5, 40)
    linear.bias.data.copy_(torch.linspace(-3, 1, 40))
    batches = [torch.randn(30, 5, generator=generator) for _ in range(4)]
    values = torch.cat([linear(batch) for batch in batches])
    expected = (values <= 0).all(0).tolist()
    assert 0 < sum(expected) < 40
    assert watched(nn.Sequential(linear, nn.ReLU()), *batches) == {"1": expected}


def test_a_unit_that_wakes_in_the_last_batch_is_not_dead() -> None:
    net = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    net[0].weight.data.fill_(1.0)
    net[0].bias.data.fill_(0.0)
    sleeping, waking = torch.tensor([[-1.0], [-2.0]]), torch.tensor([[-1.0], [3.0]])
    assert watched(net, sleeping, sleeping) == {"1": [True]}
    assert watched(net, sleeping, waking) == {"1": [False]}
    assert watched(net, sleeping, torch.tensor([[3.0], [3.0]])) == {"1": [False]}


def test_units_are_channels_after_a_convolution_and_features_after_a_linear_layer() -> None:
    conv = nn.Conv2d(1, 3, 1)
    conv.bias.data.copy_(torch.tensor([9.0, -99.0, 9.0]))
    images = torch.randn(8, 1, 4, 5)
    assert watched(nn.Sequential(conv, nn.BatchNorm2d(3).eval(), nn.ReLU()), images) == {
        "2": [False, True, False]
    }
    linear = nn.Linear(6, 3)
    linear.bias.data.copy_(torch.tensor([9.0, -99.0, 9.0]))
    texts = torch.randn(8, 7, 6)
    assert watched(nn.Sequential(linear, nn.ReLU()), texts) == {"1": [False, True, False]}


class Functional(nn.Module):
    """Calls functions rather than modules, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(2, 3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.two(functional.relu(self.one(x)))).relu()


def test_functions_are_seen_and_calls_told_apart() -> None:
    net = Functional()
    net.one.bias.data[0] = -99
    net.two.bias.data[3] = -99
    found = watched(net, torch.randn(50, 2), torch.randn(50, 2))
    assert list(found) == ["Functional (call 1)", "Functional (call 2)", "Functional (call 3)"]
    assert found["Functional (call 1)"] == [True, False, False]
    assert found["Functional (call 2)"][3]  # saturated
    assert found["Functional (call 3)"][3]


def test_saturated_units_are_constant_but_not_zero() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
    net[0].bias.data.copy_(torch.tensor([0.0, 99.0]))
    with torch.no_grad(), WatchUnits(net) as watch:
        net(torch.randn(50, 2))
    (activity,) = watch.activities()
    assert activity.constant.tolist() == [False, True]
    assert activity.zero.tolist() == [False, False]
    assert not activity.rectifier
    assert activity.dead == 0.5
    assert activity.samples == 50


@pytest.mark.parametrize("raises", [False, True])
def test_nothing_stays_behind(raises: bool) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    data = torch.randn(3, 2)
    expected = net(data)
    try:
        with WatchUnits(net):
            net(data)
            if raises:
                net(torch.randn(3, 5))
    except RuntimeError:
        assert raises
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    assert torch.equal(net(data), expected)


def test_an_error_within_a_layer_leaves_the_names_right() -> None:
    net = nn.ModuleDict({"bad": nn.Linear(9, 9), "good": nn.Sequential(nn.Linear(2, 2), nn.ReLU())})
    with WatchUnits(net) as watch:
        with pytest.raises(RuntimeError):
            net["bad"](torch.zeros(1, 2))
        functional.relu(torch.zeros(1, 2))
        net["good"](torch.zeros(1, 2))
    assert [one.layer for one in watch.activities()] == ["", "good.1"]


def test_an_axis_of_changing_length_is_left_out() -> None:
    found = watched(nn.ReLU(), torch.randn(3, 4), torch.randn(3, 5), torch.randn(3, 5))
    assert found == {}
