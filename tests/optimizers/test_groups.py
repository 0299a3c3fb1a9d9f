"""Param groups as a plain function, on architectures with their own habits."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization

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


def test_a_frozen_network_behind_the_trained_one_is_no_part_of_the_order() -> None:
    student = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    target = copy.deepcopy(student).requires_grad_(False)
    for module in (
        nn.ModuleList([student, target]),
        nn.ModuleList([student[:2], target, student[2:]]),
    ):
        numbers, count = layer_numbers(module)
        assert [numbers[id(layer.weight)] for layer in student] == [0, 1, 2]
        assert count == 3
        hidden = {id(layer.weight) for layer in student[:2]}
        assert hidden_matrices(module) & {id(p) for p in student.parameters()} == hidden
        scales = {group["lr"] for group in group_parameters(module, lr=1.0, layer_decay=0.5)}
        assert scales == {0.25, 0.5, 1.0}


def test_frozen_layers_before_the_trained_ones_keep_their_place_in_the_order() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    module[:2].requires_grad_(False)
    numbers, count = layer_numbers(module)
    assert [numbers[id(layer.weight)] for layer in module] == [0, 1, 2]
    assert count == 3


def test_layers_that_the_optimizer_has_not_do_not_count() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    held = {id(p) for layer in (module[1], module[2]) for p in layer.parameters()}
    numbers, count = layer_numbers(module, held)
    assert (numbers[id(module[1].weight)], numbers[id(module[2].weight)], count) == (0, 1, 2)
    assert id(module[2].weight) not in hidden_matrices(module, held)
    assert id(module[1].weight) in hidden_matrices(module, held)


def test_an_embedding_registered_after_the_decoder_it_shares_with_is_one() -> None:
    module = nn.Sequential(nn.Linear(4, 7), nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(7, 3))
    module[0].weight = module[1].weight
    assert names(module, hidden_matrices(module)) == {"2.weight"}


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
def test_a_weight_normalized_layer_is_one_layer_and_its_gains_are_no_matrix(norm: Any) -> None:
    module = nn.Sequential(norm(nn.Linear(4, 4)), norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    numbers, count = layer_numbers(module)
    assert count == 3
    for number, layer in enumerate(module):
        assert {numbers[id(p)] for p in layer.parameters()} == {number}
    directions = {id(p) for layer in module[:2] for p in layer.parameters() if p.shape == (4, 4)}
    assert hidden_matrices(module) == directions
    decayed = {id(p) for p in module.parameters()} - undecayed(module)
    assert decayed == directions | {id(module[2].weight)}


def test_parametrized_tensors_are_what_they_are_called() -> None:
    class Same(nn.Module):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return value

    module = nn.Sequential(nn.MultiheadAttention(4, 2, add_bias_kv=True), nn.Linear(4, 4))
    register_parametrization(module[0], "bias_k", Same())
    parametrizations.spectral_norm(module[1])
    original = module[1].parametrizations.weight.original  # type: ignore[union-attr]
    assert id(module[0].parametrizations.bias_k.original) in undecayed(module)  # type: ignore[union-attr]
    assert id(original) not in undecayed(module)
    numbers, _ = layer_numbers(module)
    assert numbers[id(original)] == numbers[id(module[1].bias)]


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
    assert found[id(module.token)]["lr"] == pytest.approx(
        0.1 * 0.5**11
    )  # the frozen kernel is no layer


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
