"""FreezeLayers on modules that change their own layers, and on whole optimizers."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_dlopt import FreezeLayers, Lookahead, TechniqueError
from tests.optimizers import toy
from tests.optimizers.toy import Toy, fit


class Tunes(Toy):
    """Notes its first layer's weight before and after the run, and the batches that moved it."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: list[bool] = []

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.before = self.net[0].weight.detach().clone()

    def on_train_batch_end(self, *_: Any) -> None:
        self.moved.append(not torch.equal(self.net[0].weight, self.before))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


HOOKS = ["on_fit_start", "on_train_start", "on_train_epoch_start"]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("epoch", [0, 1])
def test_layers_that_are_replaced(hook: str, epoch: int) -> None:
    def replace(module: Any) -> None:
        if hook == "on_train_epoch_start" and module.current_epoch != epoch:
            return
        module.net[0] = nn.Linear(3, 5)
        module.trainer.optimizers[0].param_groups[0]["params"] = list(module.parameters())

    module = toy.toy(type("Replaces", (Tunes,), {hook: replace}))
    fit(module, FreezeLayers("net.0", until=8), max_epochs=2)
    assert module.moved == [False] * 8 + [True] * 4
    assert module.net[0].weight.requires_grad


@pytest.mark.parametrize("hook", HOOKS)
def test_what_the_module_freezes_stays_frozen(hook: str) -> None:
    def freeze(module: Any) -> None:
        module.net[0].requires_grad_(False)

    module = toy.toy(type("Freezes", (Tunes,), {hook: freeze}))
    fit(module, FreezeLayers(["net.0", "net.3"], until=2))
    assert module.moved == [False] * toy.STEPS
    assert not module.net[0].weight.requires_grad
    assert module.net[3].weight.requires_grad


class Toggles(Tunes):
    """Two optimizers by turns, as a GAN has them."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(functional.mse_loss(self.net(batch[0]), batch[1]))
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        parts = (self.net[:2], self.net[2:])
        return [torch.optim.SGD(p.parameters(), lr=0.1, momentum=0.9) for p in parts]


@pytest.mark.parametrize("span", [{"until": 3}, {"after": 3}])
@pytest.mark.parametrize("patterns", ["net.0", ["net.0", "net.1"]])
def test_an_optimizer_that_is_toggled_may_rest(span: Any, patterns: Any) -> None:
    module = toy.toy(Toggles)
    fit(module, FreezeLayers(patterns, **span))
    first = "after" in span
    assert module.moved == [first] * 3 + [not first] * 3
    assert all(parameter.requires_grad for parameter in module.parameters())


class Lazy(Tunes):
    def __init__(self) -> None:
        super().__init__()
        self.net[0] = nn.LazyLinear(5)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx:
            super().on_train_batch_start(batch, batch_idx)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx:
            super().on_train_batch_end()


def test_layers_without_weights_yet() -> None:
    for technique in (FreezeLayers("net.0", until=3), Lookahead()):
        with pytest.raises(TechniqueError, match="lazy"):
            fit(toy.toy(Lazy), technique)
    module = toy.toy(Lazy)
    fit(module, FreezeLayers("net.0", after=3))
    assert module.moved == [True] * 2 + [False] * 3
