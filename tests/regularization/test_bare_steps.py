"""Penalties where Lightning doesn't see a step, or sees one of another optimizer."""

from functools import partial
from typing import Any

import pytest
import torch

from lightning_dlopt import L1, L2, TechniqueError
from tests.regularization.regression import Regression, assert_close, fit

SGD = partial(torch.optim.SGD, lr=0.1)
FORMS = [
    L1(0.1),
    L1(0.1, method="proximal"),
    L2(0.1),
    L2(0.1, "all", method="weight_decay"),
]


class Manual(Regression):
    def __init__(self, bare: bool, **arguments: Any) -> None:
        super().__init__(make=SGD, **arguments)
        self.automatic_optimization = False
        self.bare = bare

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers(use_pl_optimizer=not self.bare)
        loss = super().training_step(batch, batch_idx)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class Stepping(Regression):
    """Steps the optimizer inside Lightning's, the closure in it or before it."""

    def __init__(self, closure_first: bool) -> None:
        super().__init__(make=SGD)
        self.closure_first = closure_first

    def optimizer_step(
        self, epoch: Any, batch_idx: Any, optimizer: Any, closure: Any = None
    ) -> None:
        if self.closure_first:
            closure()
            optimizer.optimizer.step()
        else:
            optimizer.optimizer.step(closure=closure)


@pytest.mark.parametrize("technique", FORMS, ids=str)
def test_a_step_past_lightning_is_an_error_before_it_is_made(technique: Any) -> None:
    for module in (Manual(bare=True), Stepping(closure_first=True)):
        before = module.net[2].weight.detach().clone()
        with pytest.raises(TechniqueError, match=r"past Lightning.*self\.optimizers\(\)"):
            fit(module, [technique])
        assert torch.equal(module.net[2].weight, before)
    assert not module.trainer.optimizers[0]._optimizer_step_pre_hooks  # type: ignore[attr-defined]
    with pytest.raises(TechniqueError, match="past Lightning"):
        fit(Stepping(closure_first=False), [technique])
    fit(Manual(bare=False), [technique])


def test_a_step_past_lightning_is_fine_where_nothing_is_penalized() -> None:
    ours = fit(Manual(bare=True), [L1(0.0)])
    assert_close(ours, fit(Manual(bare=True)))


class Rebuilt(Regression):
    """Has its optimizer made anew for the second epoch."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.trainer.strategy.setup_optimizers(self.trainer)


def test_an_optimizer_that_is_made_in_mid_run_is_penalized_too() -> None:
    class ByHand(Rebuilt):
        def on_train_batch_end(self, *args: Any) -> None:
            with torch.no_grad():
                for weight in (self.net[0].weight, self.net[2].weight):
                    weight.copy_(weight.sign() * (weight.abs() - 0.02).clamp(min=0))

    make = partial(torch.optim.SGD, lr=0.1)
    ours = fit(Rebuilt(make=make), [L1(0.2, method="proximal")])
    assert_close(ours, fit(ByHand(make=make)))
    ours = fit(Rebuilt(make=make), [L1(0.2)])
    assert_close(ours, fit(Rebuilt(l1=0.2, make=make)))
