"""UseOptimizer's fused forms, also where gradients come late or are sparse."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adagrad, Adam, AdamW, RMSprop

from lightning_dlopt import FreezeLayers, UseOptimizer
from lightning_dlopt.optimizers.given import can_fuse
from tests.optimizers.toy import Toy, assert_close, fit, toy


class Late(Toy):
    """Its middle layer gets a gradient from the third batch on, and in every second one only."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.net[3].requires_grad_(batch_idx >= 2 and batch_idx % 2 == 0)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    "make",
    [
        partial(SGD, lr=0.05, momentum=0.9),
        partial(SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
        partial(SGD, lr=0.05, momentum=0.9, dampening=0.5),
        partial(SGD, lr=0.05, momentum=0.9, maximize=True),
        partial(Adam, lr=0.05),
    ],
)
def test_a_gradient_that_comes_late_is_as_without_the_fused_form(make: Any) -> None:
    fused, plain = toy(Late), toy(Late)
    trainer = fit(fused, UseOptimizer(make), max_epochs=2)
    fit(plain, UseOptimizer(partial(make, fused=False)), max_epochs=2)
    assert_close(fused, plain.state_dict())
    group = trainer.optimizers[0].param_groups[0]
    assert bool(group["fused"]) == (not group.get("dampening"))


def test_what_is_thawed_or_added_later_is_as_without_the_fused_form() -> None:
    class Adding(Toy):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                self.net.append(nn.Linear(2, 2))
                nn.init.eye_(self.net[6].weight)
                nn.init.zeros_(self.net[6].bias)
                self.optimizers().add_param_group({"params": list(self.net[6].parameters())})  # type: ignore[union-attr]

    results = []
    for chosen in ({}, {"fused": False}):
        module = toy(Adding)
        technique = UseOptimizer(partial(SGD, lr=0.05, momentum=0.9, **chosen))
        fit(module, technique, FreezeLayers(["net.0.*"], until=2), max_epochs=2)
        results.append(module)
    assert_close(results[0], results[1].state_dict())


class Sparse(Toy):
    """Adds an embedding whose gradients are sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 3, sparse=True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs = batch[0] + self.table(torch.tensor([0, 1, 1, 3]))
        return functional.mse_loss(self.net(inputs), batch[1])


@pytest.mark.parametrize("make", [partial(SGD, lr=0.1), partial(Adagrad, lr=0.1)])
def test_embeddings_with_sparse_gradients_are_not_fused(make: Any) -> None:
    module = toy(Sparse)
    reference = copy.deepcopy(module)
    fit(module, UseOptimizer(make))
    reference.configure_optimizers = lambda: make(reference.parameters())
    fit(reference)
    assert_close(module, dict(reference.state_dict()))
    assert not torch.equal(module.table.weight, toy(Sparse).table.weight)


@pytest.mark.parametrize("cls", [SGD, Adam, AdamW, Adagrad])
def test_the_fused_form_is_used_and_computes_the_same(cls: Any) -> None:
    fused, plain = toy(), toy()
    trainer = fit(fused, UseOptimizer(partial(cls, lr=0.05)))
    assert all(group["fused"] is True for group in trainer.optimizers[0].param_groups)
    fit(plain, UseOptimizer(partial(cls, lr=0.05, fused=False)))
    assert_close(fused, plain.state_dict())


@pytest.mark.parametrize("chosen", [{"fused": False}, {"foreach": True}, {"foreach": False}])
def test_an_implementation_that_is_asked_for_is_kept(chosen: Any) -> None:
    trainer = fit(toy(), UseOptimizer(partial(AdamW, **chosen)))
    for group in trainer.optimizers[0].param_groups:
        assert {name: group[name] for name in chosen} == chosen
        assert not group["fused"]


@pytest.mark.parametrize(
    ("dtype", "fused"),
    [(torch.float32, True), (torch.float64, True), (torch.bfloat16, True), (torch.cfloat, False)],
)
def test_what_torch_cannot_fuse_is_found_by_trying(dtype: Any, fused: bool) -> None:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, dtype=dtype))]
    assert can_fuse(partial(Adagrad, lr=0.1), parameters) is fused


def test_other_optimizers_are_left_as_they_are() -> None:
    assert "fused" not in fit(toy(), UseOptimizer(RMSprop)).optimizers[0].param_groups[0]

    class Own(AdamW):
        pass

    trainer = fit(toy(), UseOptimizer(Own))
    assert trainer.optimizers[0].param_groups[0]["fused"] is None


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_trainer_clips_as_it_does_without_the_fused_form(precision: Any) -> None:
    results = []
    for chosen in ({}, {"fused": False}):
        module = toy()
        technique = UseOptimizer(partial(SGD, lr=0.5, **chosen))
        fit(module, technique, gradient_clip_val=0.1, precision=precision)
        results.append(module)
    assert_close(results[0], results[1].state_dict())


def test_sixteen_bit_training_clips_and_skips_overflows_as_without_the_fused_form() -> None:
    results = []
    for chosen in ({}, {"fused": False}):
        module = toy()
        # so high at first that the gradients overflow and steps are skipped
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**18)
        trainer = fit(
            module,
            UseOptimizer(partial(Adam, lr=0.05, **chosen)),
            plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
            gradient_clip_val=0.1,
        )
        results.append(module)
        assert scaler.get_scale() < 2.0**18
        steps = {float(state["step"]) for state in trainer.optimizers[0].state.values()}
        assert 0 < max(steps) < 6
    assert_close(results[0], results[1].state_dict())
