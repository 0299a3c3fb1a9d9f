"""Choosing and removing channels, on small nets of which it is known what must happen."""

import copy
import random
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.structure.channels.choose import (
    choose_channels,
    prune_channels,
    shrink_,
)
from lightning_dlopt.structure.channels.widths import named_tensors, structure_of
from lightning_dlopt.structure.summaries.multiply_adds import count_multiply_adds
from tests.structure.choosing import IMAGES, choose, convolutions, mlp


@pytest.mark.parametrize("build", [convolutions, mlp])
@pytest.mark.parametrize("speed_up", [1.5, 2.0, 4.0])
@pytest.mark.parametrize("by", ["multiply_adds", "parameters"])
def test_meets_the_target_with_aligned_widths(build: Any, speed_up: float, by: str) -> None:
    module = build()
    example = IMAGES if build is convolutions else torch.ones(2, 4)

    def amount(net: nn.Module) -> int:
        if by == "parameters":
            return sum(p.numel() for p in net.parameters())
        return count_multiply_adds(net, example)

    before = amount(module)
    chosen = choose(module, speed_up=speed_up, by=by, align=2, max_ratio=0.95)
    shrink_(module, chosen)
    assert before / amount(module) == pytest.approx(speed_up, rel=0.05)
    assert before / amount(module) == pytest.approx(chosen.speed_up)
    for layer in list(module)[:-1]:
        for name in ("out_channels", "out_features"):
            assert getattr(layer, name, 0) % 2 == 0
    assert module(example).shape == build()(example).shape


def test_keeps_what_weighs_most_in_order() -> None:
    module: Any = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
    strong = sorted(random.Random(1).sample(range(32), 16))
    with torch.no_grad():
        weak = [i for i in range(32) if i not in strong]
        module[0].weight[weak] *= 0.01
        module[0].bias[weak] *= 0.01
        module[2].weight[:, weak] *= 0.01
    before = copy.deepcopy(module)
    chosen = prune_channels(module, torch.ones(1, 4), speed_up=2)
    assert {name: [(d, i.tolist()) for d, i in dims] for name, dims in chosen.kept.items()} == {
        "0.weight": [(0, strong)],
        "0.bias": [(0, strong)],
        "2.weight": [(1, strong)],
    }
    assert torch.equal(module[0].weight, before[0].weight[strong])
    assert torch.equal(module[2].weight, before[2].weight[:, strong])


def test_taylor_keeps_what_the_loss_needs() -> None:
    module: Any = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
    needed = list(range(1, 32, 2))
    with torch.no_grad():
        module[0].bias.fill_(5.0)  # all are active
    values = module[1](module[0](torch.randn(8, 4)))
    kept = values * torch.tensor([float(i in needed) for i in range(32)])
    (module[2](kept).square().sum()).backward()
    chosen = choose(module, importance="taylor")
    assert chosen.kept["0.weight"][0][1].tolist() == needed


def test_taylor_without_gradients_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"taylor.*gradients"):
        choose(mlp(), importance="taylor")


def test_choosing_leaves_the_module_and_the_generators_alone() -> None:
    module = convolutions()
    module(IMAGES).sum().backward()
    module[1].weight.requires_grad_(False)
    module.train()
    module[1].eval()
    tensors = {
        name: (id(t), t.clone(), t.requires_grad) for name, t in named_tensors(module).items()
    }
    named: dict[str, Any] = dict(module.named_parameters())
    grads = {name: (id(p.grad), p.grad.clone()) for name, p in named.items()}
    modes = [part.training for part in module.modules()]
    attributes = [set(vars(part)) for part in module.modules()]
    was, state, python = structure_of(module), torch.get_rng_state(), random.getstate()
    choose(module, speed_up=1.2, align=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    assert structure_of(module) == was
    assert [part.training for part in module.modules()] == modes
    assert [set(vars(part)) for part in module.modules()] == attributes
    assert not any(part._forward_hooks for part in module.modules())
    for name, tensor in named_tensors(module).items():
        same, values, learns = tensors[name]
        assert (id(tensor), tensor.requires_grad) == (same, learns)
        assert torch.equal(tensor, values)
    for name, parameter in named.items():
        assert id(parameter.grad) == grads[name][0]
        assert torch.equal(parameter.grad, grads[name][1])


def test_shrinking_hands_over_parameters_gradients_and_marks() -> None:
    module = mlp()
    module(torch.ones(2, 4)).sum().backward()
    module[0].weight.mark = 3
    old: dict[str, Any] = dict(module.named_parameters())
    bias = module[4].bias
    chosen = choose(module)
    replaced = shrink_(module, chosen)
    new: dict[str, Any] = dict(module.named_parameters())
    assert replaced == {old[name]: new[name] for name in chosen.kept}
    assert new["0.weight"].mark == 3
    assert new["4.bias"] is bias
    kept = chosen.kept["0.weight"][0][1]
    assert torch.equal(new["0.weight"].grad, old["0.weight"].grad[kept])


def test_dtype_and_memory_format_stay() -> None:
    module = convolutions().to(torch.bfloat16).to(memory_format=torch.channels_last)
    chosen = choose_channels(module, lambda net: net(IMAGES.bfloat16()))
    shrink_(module, chosen)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert module[3].weight.is_contiguous(memory_format=torch.channels_last)
