"""What optimizers lose sight of is found, and what modules leave out by will is not."""

import copy
import gc
import pickle
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn
from torch.optim import SGD

from lightning_dlopt.core import TechniqueError
from lightning_dlopt.core.coverage import Coverage
from lightning_dlopt.optimizers import UseOptimizer
from tests.quiet import QUIET


class Body(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        self.target = nn.Linear(2, 2)


def test_a_replaced_layer_is_found_on_both_sides() -> None:
    module = Body()
    coverage, optimizer = Coverage(module), SGD(module.parameters())
    assert coverage.lost(module, [optimizer]) == ([], [])
    module.net[0] = nn.Linear(2, 3, bias=False)
    assert coverage.lost(module, [optimizer]) == (
        ["net.0.weight", "net.0.bias"],
        ["net.0.weight"],
    )
    with pytest.raises(TechniqueError, match=r"dlopt: .*Body.*still trains net.0.weight.*--optim"):
        coverage.check("dlopt", module, [optimizer])


def test_an_added_layer_is_found_and_a_frozen_one_is_fine() -> None:
    module = Body()
    coverage, optimizer = Coverage(module), SGD(module.parameters())
    module.adapter = nn.Linear(2, 2)
    assert coverage.lost(module, [optimizer]) == ([], ["adapter.weight", "adapter.bias"])
    module.adapter.requires_grad_(False)
    assert coverage.lost(module, [optimizer]) == ([], [])


def test_an_optimizer_made_afterwards_may_leave_out_what_it_likes() -> None:
    module = Body()
    coverage = Coverage(module)
    module.net[0] = nn.Linear(2, 3)
    module.teacher = nn.Linear(2, 2)
    assert coverage.lost(module, [SGD(module.net.parameters())]) == ([], [])


def test_what_was_left_out_from_the_start_is_fine() -> None:
    # a target network, and two optimizers as of a GAN
    module = Body()
    coverage = Coverage(module)
    optimizers = [SGD(module.net[0].parameters()), SGD(module.net[1].parameters())]
    module.more = nn.Linear(2, 2)
    assert coverage.lost(module, optimizers) == ([], [])


def test_what_the_module_trains_without_owning_it_is_fine() -> None:
    module, outside = Body(), nn.Linear(2, 2)
    coverage = Coverage(module)
    optimizer = SGD([*module.parameters(), *outside.parameters()])
    assert coverage.lost(module, [optimizer]) == ([], [])


def test_layers_that_configure_model_makes_are_fine() -> None:
    module = LightningModule()
    module.head = nn.Linear(2, 2)
    coverage = Coverage(module)
    module.body, module.target = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = SGD([*module.head.parameters(), *module.body.parameters()])
    assert coverage.lost(module, [optimizer]) == ([], [])
    empty = Coverage(LightningModule())
    assert empty.lost(module, [SGD(module.body.parameters())]) == ([], [])


def test_frozen_parameters_that_thaw_are_fine() -> None:
    module = Body()
    module.target.requires_grad_(False)
    coverage, optimizer = Coverage(module), SGD(module.net.parameters())
    module.target.requires_grad_(True)
    assert coverage.lost(module, [optimizer]) == ([], [])


def test_no_parameter_is_kept_alive_and_a_copy_knows_nothing() -> None:
    module = Body()
    coverage = Coverage(module)
    for twin in (copy.deepcopy(coverage), pickle.loads(pickle.dumps(coverage))):
        assert twin.lost(Body(), [SGD(module.parameters())]) == ([], [])
    del module
    gc.collect()
    assert all(reference() is None for _, _, reference in coverage._before.values())


# ---- as UseOptimizer uses it ----


class Surgery(Callback):
    """Replaces a layer in one hook, or adds one."""

    def __init__(self, hook: str, adds: bool = False) -> None:
        self.hook, self.adds = hook, adds

    def operate(self, module: Any) -> None:
        torch.manual_seed(1)
        if self.adds:
            module.adapter = nn.Linear(2, 2)
            return
        module.layer = nn.Linear(32, 2)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.hook == "setup":
            self.operate(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.hook == "on_fit_start":
            self.operate(pl_module)


class MadeEarly(BoringModel):
    """Makes its optimizer in its constructor."""

    def __init__(self) -> None:
        super().__init__()
        self.optimizer = SGD(self.parameters(), lr=0.1)

    def configure_optimizers(self) -> Any:
        return self.optimizer


def fit(module: Any, *callbacks: Any) -> Trainer:
    trainer = Trainer(**QUIET, callbacks=list(callbacks), max_steps=2, limit_val_batches=0)
    trainer.fit(module)
    return trainer


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("cls", "hook"),
    [(MadeEarly, "setup"), (MadeEarly, "on_fit_start"), (BoringModel, "on_fit_start")],
)
def test_surgery_behind_the_optimizers_back_is_refused(cls: Any, hook: str, first: bool) -> None:
    callbacks = [Surgery(hook), UseOptimizer(SGD)]
    with pytest.raises(TechniqueError, match=r"UseOptimizer.*optimizer of"):
        fit(cls(), *(callbacks if first else reversed(callbacks)))


@pytest.mark.parametrize("hook", ["setup", "on_fit_start"])
def test_a_layer_added_behind_the_optimizers_back_is_refused(hook: str) -> None:
    with pytest.raises(TechniqueError, match=r"UseOptimizer.*doesn't train adapter.weight"):
        fit(MadeEarly(), UseOptimizer(SGD), Surgery(hook, adds=True))


@pytest.mark.parametrize("first", [True, False])
def test_surgery_in_setup_is_trained_by_an_optimizer_made_afterwards(first: bool) -> None:
    callbacks = [Surgery("setup"), UseOptimizer(SGD)]
    module = BoringModel()
    trainer = fit(module, *(callbacks if first else reversed(callbacks)))
    trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert trained == {id(p) for p in module.parameters()}
    torch.manual_seed(1)
    assert not torch.equal(module.layer.weight, nn.Linear(32, 2).weight)
