"""UseOptimizer: which parameters, at what rate, with what decay, in which kinds of run."""

import copy
import functools
from functools import partial
from typing import Any

import pytest
import torch
from torch.optim import LBFGS, SGD

from lightning_dlopt import CosineLR, Muon, UseOptimizer
from lightning_dlopt.core import NoEffectWarning
from tests.optimizers.grouped import DECAYING, Groups
from tests.optimizers.toy import Toy, assert_close, by_hand, fit, names_of, rates, toy

BIASES_AND_NORMS = ["net.0.bias", "net.1.weight", "net.1.bias", "net.3.bias", "net.5.bias"]


# ---- which parameters, at what rate, with what decay ----


def test_norms_and_biases_are_left_out_of_weight_decay() -> None:
    module = toy()
    trainer = fit(module, UseOptimizer(DECAYING))
    decay = [group["weight_decay"] for group in trainer.optimizers[0].param_groups]
    assert dict(zip(decay, map(sorted, names_of(trainer, module)), strict=True)) == {
        0.3: ["net.0.weight", "net.3.weight", "net.5.weight"],
        0.0: sorted(BIASES_AND_NORMS),
    }


def test_patterns_take_the_place_of_auto() -> None:
    module = toy()
    trainer = fit(module, UseOptimizer(DECAYING, no_decay=["*.0.*", "net.5.weight"]))
    groups = dict(
        zip(
            [group["weight_decay"] for group in trainer.optimizers[0].param_groups],
            names_of(trainer, module),
            strict=True,
        )
    )
    assert groups[0.0] == ["net.0.weight", "net.0.bias", "net.5.weight"]


def test_none_decays_all_in_one_group() -> None:
    trainer = fit(toy(), UseOptimizer(DECAYING, no_decay=None))
    assert [g["weight_decay"] for g in trainer.optimizers[0].param_groups] == [0.3]


def test_the_own_groups_rates_keep_their_relation_and_their_lack_of_decay() -> None:
    module = toy(Groups)
    before = copy.deepcopy(module.net[1].state_dict())
    trainer = fit(module, UseOptimizer(DECAYING))
    found = [
        (sorted(names), pytest.approx(group["lr"]), group["weight_decay"])
        for names, group in zip(
            names_of(trainer, module), trainer.optimizers[0].param_groups, strict=True
        )
    ]
    assert found == [
        (["net.0.bias", "net.0.weight", "net.3.bias", "net.3.weight"], 0.01, 0.0),
        (["net.5.weight"], 0.1, 0.3),
        (["net.5.bias"], 0.1, 0.0),
    ]
    # what the module left out stays out
    assert all(torch.equal(before[name], module.net[1].state_dict()[name]) for name in before)


def test_layer_decay_lowers_the_rate_from_output_to_input() -> None:
    module = toy()
    trainer = fit(module, UseOptimizer(partial(SGD, lr=0.4), layer_decay=0.5))
    assert [sorted(names) for names in names_of(trainer, module)] == [
        ["net.0.bias", "net.0.weight", "net.1.bias", "net.1.weight"],
        ["net.3.bias", "net.3.weight"],
        ["net.5.bias", "net.5.weight"],
    ]
    assert rates(trainer) == pytest.approx([0.1, 0.2, 0.4])
    scale = {"0": 0.1, "1": 0.1, "3": 0.2, "5": 0.4}
    assert_close(module, by_hand(lambda w, g, name, **_: w - scale[name[0]] * g))


def test_a_schedule_multiplies_every_layers_rate() -> None:
    module = toy()
    factors = CosineLR().simulate(6)
    fit(module, UseOptimizer(partial(SGD, lr=0.4), layer_decay=0.5), CosineLR())
    scale = {"0": 0.1, "1": 0.1, "3": 0.2, "5": 0.4}
    assert_close(
        module,
        by_hand(lambda w, g, name, step, **_: w - scale[name[0]] * factors[step - 1] * g),
    )


def test_frozen_parameters_inside_the_own_optimizer_can_be_thawed_later() -> None:
    module = toy()
    module.net[0].requires_grad_(False)
    trainer = fit(module, UseOptimizer(DECAYING))
    assert {"net.0.weight", "net.0.bias"} <= {n for g in names_of(trainer, module) for n in g}


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"optimizer": partial(SGD, lr=0.1), "no_decay": ["*.bias"]}, "no weight decay"),
        ({"optimizer": partial(SGD, lr=0.0)}, "rate is 0"),
    ],
)
def test_arguments_without_effect_are_told(arguments: Any, what: str) -> None:
    with pytest.warns(NoEffectWarning, match=what):
        fit(toy(), UseOptimizer(**arguments))


class ManualToy(Toy):
    """Manual optimization with one optimizer, which it asks Lightning for."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


def test_manual_optimization_with_one_optimizer_works() -> None:
    module = toy(ManualToy)
    fit(module, UseOptimizer(partial(SGD, lr=0.1)))
    assert_close(module, by_hand(lambda w, g, **_: w - 0.1 * g))


def test_an_optimizer_of_one_group_without_decay_works() -> None:
    module = toy()
    trainer = fit(module, UseOptimizer(partial(LBFGS, lr=0.1, max_iter=2)))
    assert isinstance(trainer.optimizers[0], LBFGS)


def test_a_function_works() -> None:
    module = toy()
    fit(module, UseOptimizer(lambda params: SGD(params, lr=0.1)))
    assert_close(module, by_hand(lambda w, g, **_: w - 0.1 * g))


# ---- with Muon ----


def test_muon_is_told_which_matrices_are_hidden() -> None:
    module = toy()
    trainer = fit(module, UseOptimizer(partial(Muon, weight_decay=0.1), layer_decay=0.5))
    kinds = [(g["use_muon"], g["weight_decay"]) for g in trainer.optimizers[0].param_groups]
    found = {
        name: kind
        for names, kind in zip(names_of(trainer, module), kinds, strict=True)
        for name in names
    }
    hidden = {name for name, (use_muon, _) in found.items() if use_muon}
    assert hidden == {"net.0.weight", "net.3.weight"}
    assert {name for name, (_, decay) in found.items() if decay == 0} == set(BIASES_AND_NORMS)
    by_name = dict(zip((n[0] for n in names_of(trainer, module)), rates(trainer), strict=True))
    assert by_name["net.3.weight"] == pytest.approx(0.01)
    assert by_name["net.5.weight"] == pytest.approx(3e-4)


def test_arguments_are_the_same_from_a_class_and_from_a_partial_at_its_defaults() -> None:
    plain, partly = UseOptimizer(SGD), UseOptimizer(functools.partial(SGD, lr=1e-3, momentum=0))
    assert plain.state_key == partly.state_key
