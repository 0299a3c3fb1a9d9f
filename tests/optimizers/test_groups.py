"""Param groups as a plain function, on architectures with their own habits."""

from typing import Any

import pytest
import torch
from torch import nn

from lightning_dlopt import group_parameters
from lightning_dlopt.core import ArgumentError, ArgumentTypeError
from lightning_dlopt.optimizers.groups import hidden_matrices, layer_numbers, undecayed


def names(module: nn.Module, chosen: set[int]) -> set[str]:
    return {name for name, parameter in module.named_parameters() if id(parameter) in chosen}


class Vision(nn.Module):
    """A small vision transformer: tokens of its own, blocks, attention with bias tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.patch = nn.Conv2d(3, 8, 4)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, norm_first=True) for _ in range(2)
        )
        self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True)
        self.norm = nn.LayerNorm((4, 8))
        self.head = nn.Linear(8, 10)


def test_biases_gains_and_norms_of_any_shape_do_not_decay() -> None:
    module = Vision()
    decayed = names(module, {id(p) for p in module.parameters()} - undecayed(module))
    block = ["self_attn.in_proj_weight", "self_attn.out_proj.weight"]
    block += ["linear1.weight", "linear2.weight"]
    assert decayed == {
        *("token", "patch.weight", "head.weight"),
        *("attention.in_proj_weight", "attention.out_proj.weight"),
        *(f"blocks.{number}.{name}" for number in range(2) for name in block),
    }


def test_recurrent_biases_do_not_decay_and_embeddings_do() -> None:
    module = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "rnn": nn.LSTM(3, 4)})
    decayed = names(module, {id(p) for p in module.parameters()} - undecayed(module))
    assert decayed == {"embedding.weight", "rnn.weight_ih_l0", "rnn.weight_hh_l0"}


def test_layers_are_counted_in_the_order_of_registration() -> None:
    module = Vision()
    numbers, count = layer_numbers(module)
    by_name = {name: numbers[id(p)] for name, p in module.named_parameters()}
    assert by_name["token"] == 0
    assert by_name["patch.weight"] == by_name["patch.bias"] == 1
    # a block of four matrices is four layers here, its norms go with the layer before them
    assert by_name["blocks.0.self_attn.in_proj_weight"] == 2
    assert by_name["blocks.0.linear2.weight"] == by_name["blocks.0.norm1.weight"] == 5
    assert by_name["head.weight"] == count - 1 == 12


def test_a_shared_weight_belongs_to_its_first_layer_and_the_last_stays_the_last() -> None:
    module = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    module[2].weight = module[0].weight
    numbers, count = layer_numbers(module)
    assert count == 3
    assert numbers[id(module[0].weight)] == 0
    assert names(module, hidden_matrices(module)) == {"1.weight"}


def test_any_torch_optimizer_takes_the_groups() -> None:
    module = Vision()
    module.patch.requires_grad_(False)
    groups = group_parameters(module, lr=0.1, layer_decay=0.5)
    optimizer = torch.optim.AdamW(groups, lr=9.0, weight_decay=0.2)
    found = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert set(found) == {id(p) for p in module.parameters() if p.requires_grad}
    assert found[id(module.head.weight)]["lr"] == 0.1
    assert found[id(module.head.weight)]["weight_decay"] == 0.2
    assert found[id(module.head.bias)]["weight_decay"] == 0.0
    assert found[id(module.token)]["lr"] == pytest.approx(0.1 * 0.5**12)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"lr": -1}, ArgumentError),
        ({"lr": 1, "no_decay": "norms"}, ArgumentError),
        ({"lr": 1, "no_decay": [1]}, ArgumentTypeError),
        ({"lr": 1, "no_decay": ["*.missing"]}, ArgumentError),
        ({"lr": 1, "layer_decay": 0.0}, ArgumentError),
        ({"lr": 1, "layer_decay": True}, ArgumentTypeError),
    ],
)
def test_bad_arguments_raise(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        group_parameters(nn.Linear(2, 2), **arguments)
