from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_dlopt.core.errors import TechniqueError
from lightning_dlopt.core.replaced import Replaced


class Odd(torch.optim.SGD):
    """Keeps something of a shape of its own."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["history"] = torch.zeros(7)
        return super().step(closure)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def cut_net(module: nn.Sequential) -> Replaced:
    """Take out the second of the four channels."""
    rest = [0, 2, 3]
    kept = {
        "0.weight": [(0, rest)],
        "0.bias": [(0, rest)],
        "1.running_mean": [(0, rest)],
        "2.weight": [(1, rest)],
    }
    replaced = Replaced(module, kept)
    pairs = []
    for layer, name, dim in ((0, "weight", 0), (0, "bias", 0), (2, "weight", 1)):
        old = getattr(module[layer], name)
        new = nn.Parameter(old.detach().index_select(dim, torch.tensor(rest)))
        setattr(module[layer], name, new)
        pairs.append((old, new))
    replaced.add(pairs)
    return replaced


def stepped(module: nn.Module, make: Any) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = make(module.parameters())
    module(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return optimizer


def test_optimizers_hold_the_new_parameters_and_the_cut_state_in_the_same_order() -> None:
    module = net()
    optimizer = stepped(module, torch.optim.AdamW)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    before = optimizer.state_dict()["state"]
    state, groups = optimizer.state, optimizer.param_groups
    cut_net(module).replace_in(optimizer)
    assert optimizer.state is state
    assert optimizer.param_groups is groups
    assert [id(p) for p in groups[0]["params"]] == [id(p) for p in module.parameters()]
    after = optimizer.state_dict()["state"]
    assert list(after) == list(before)
    assert torch.equal(after[0]["exp_avg"], before[0]["exp_avg"][[0, 2, 3]])
    assert torch.equal(after[4]["exp_avg_sq"], before[4]["exp_avg_sq"][:, [0, 2, 3]])
    assert torch.equal(after[2]["exp_avg"], before[2]["exp_avg"])
    assert all(after[index]["step"] == 1 for index in after)
    scheduler.step()
    assert groups[0]["lr"] == pytest.approx(0.0005)


def test_state_of_another_shape_is_refused_before_anything_changes() -> None:
    module = net()
    optimizer = stepped(module, Odd)
    replaced = Replaced(module, {"0.weight": [(0, [1])]})
    with pytest.raises(TechniqueError, match=r"'history' of Odd"):
        replaced.check_state([optimizer])


def test_state_of_parameters_that_stay_may_have_any_shape() -> None:
    module = net()
    Replaced(module, {"1.running_mean": [(0, [1])]}).check_state([stepped(module, Odd)])


def test_shared_parameters_are_known_by_any_of_their_names() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    replaced = Replaced(module, {"1.weight": [(0, [2])]})
    values = torch.arange(9.0).reshape(3, 3)
    for name in ("0.weight", "1.weight"):
        assert torch.equal(replaced.cut_named(name, values), values[2:])
    assert torch.equal(replaced.cut_named("0.bias", values), values)


def test_state_has_the_order_in_memory_of_its_parameter() -> None:
    layer = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    state = torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last)
    replaced, old = Replaced(layer, {"weight": [(0, [1, 2])]}), layer.weight
    new: Tensor = old.detach()[1:3].clone(memory_format=torch.channels_last)
    layer.weight = nn.Parameter(new)
    replaced.add([(old, layer.weight)])
    cut = replaced.cut(old, state)
    assert torch.equal(cut, state[1:3])
    assert cut.stride() == layer.weight.stride()
