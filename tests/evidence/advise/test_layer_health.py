"""Layers that move too far or not at all, and units that say nothing."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import Digits, ImageClassifier
from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError
from lightning_dlopt.evidence.advise.probes.layer_health import LayerHealth
from lightning_dlopt.evidence.advise.subject import Subject
from lightning_dlopt.evidence.advise.update_ratios import WatchUpdates, update_ratios
from tests.evidence.advise.planted import Manual, Model, Tensors, blobs, network, run
from tests.quiet import QUIET


def found(module: nn.Module, **options: Any) -> tuple[Finding, Finding]:
    updates, units = run(LayerHealth(), Subject(module, Tensors(*blobs()), **options))
    return updates, units


def test_ratios_by_hand() -> None:
    before = {"a": torch.tensor([[3.0, 4.0]]), "zero": torch.zeros(2)}
    after = {"a": torch.tensor([[3.3, 4.4]]), "zero": torch.ones(2)}
    assert update_ratios(before, after) == pytest.approx({"a": 0.1})


@pytest.mark.parametrize("accumulate", [1, 3])
def test_ratios_of_plain_gradient_descent(accumulate: int) -> None:
    inputs, targets = blobs(240)
    net = network(16, 4)
    model = Model(net, lr=0.5, optimizer=torch.optim.SGD)
    weight = net[1].weight.detach().clone()
    loss = functional.cross_entropy(net(inputs), targets)
    gradient = torch.autograd.grad(loss, net[1].weight)[0]
    watch = WatchUpdates(every=1)
    trainer = Trainer(max_epochs=1, accumulate_grad_batches=accumulate, callbacks=[watch], **QUIET)
    trainer.fit(model, Tensors(inputs, targets, 240 // accumulate, shuffle=False))
    expected = float(0.5 * gradient.norm() / weight.norm())
    assert watch.ratios == {"network.1.weight": [pytest.approx(expected, rel=1e-4)]}


def test_a_sound_network_gives_no_alarm() -> None:
    updates, units = found(Model(network(16, 32, 32, 4)))
    assert updates.severity == units.severity == 0
    assert set(updates.data["ratios"]) == {f"network.{i}.weight" for i in (1, 3, 5)}
    assert set(units.data["dead"]) == {"network.2", "network.4"}


@pytest.mark.parametrize("seed", range(3))
def test_digits_give_no_alarm(seed: int) -> None:
    torch.manual_seed(seed)
    subject = Subject(ImageClassifier(network(64, 128, 128, 10)), Digits(), seed=seed)
    assert [one.severity for one in run(LayerHealth(), subject)] == [0.0, 0.0]


def test_a_rate_far_too_high() -> None:
    config = {"model": {"init_args": {"lr": 1.0}}}
    updates, _ = found(Model(network(16, 32, 32, 4), lr=1.0), config=config)
    assert updates.severity > 0.5
    assert updates.question == "rate"
    (lr,) = updates.overlay["model"]["init_args"].values()
    assert lr <= 0.1


def test_a_rate_far_too_low() -> None:
    updates, units = found(Model(network(16, 32, 32, 4), lr=1e-9))
    assert updates.arm == "faster"
    assert units.severity == 0


class Unused(Model):
    """Has a layer that nothing depends on."""

    def __init__(self) -> None:
        super().__init__(network(16, 32, 4))
        self.unused = nn.Linear(3, 3)


def test_a_layer_that_never_moves() -> None:
    updates, _ = found(Unused())
    assert updates.severity > 0
    assert "unused.weight" in updates.figure
    frozen = Unused()
    frozen.unused.requires_grad_(False)
    assert found(frozen)[0].severity == 0


def test_units_that_are_dead_from_the_start() -> None:
    net = network(16, 32, 32, 4)
    with torch.no_grad():
        net[3].bias[:24] = -50.0
    _, units = found(Model(net))
    assert units.severity > 0.5
    assert units.question == "generalization"
    assert "before the first step" in units.figure
    assert units.data["dead"]["network.4"] >= 0.75
    assert units.data["dead"]["network.2"] < 0.5


def test_units_that_die_in_training() -> None:
    model = Model(network(16, 32, 32, 4), lr=3.0, optimizer=torch.optim.SGD)
    config = {"model": {"init_args": {"lr": 3.0}}}
    _, units = found(model, config=config)
    assert units.severity > 0.4
    assert units.question == "rate"
    assert units.overlay == {"model": {"init_args": {"lr": 0.3}}}
    assert max(units.data["dead_at_first"].values()) < 0.25


class Gelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (x > 0)  # no activation function of torch


def test_a_network_without_activations() -> None:
    _, units = found(Model(nn.Sequential(nn.Linear(16, 8), Gelu(), nn.Linear(8, 4))))
    assert units.severity == 0
    assert "no activation" in units.figure


def test_the_module_stays_as_it_is() -> None:
    model = Model(nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(part._forward_hooks for part in model.modules())


def test_manual_optimization_is_told() -> None:
    with pytest.raises(NotDoneError, match="optimizes manually"):
        found(Manual(network(16, 8, 4)))
