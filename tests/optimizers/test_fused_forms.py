"""UseOptimizer's fused forms where gradients come late or are sparse."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adagrad, Adam

from lightning_dlopt import FreezeLayers, UseOptimizer
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
