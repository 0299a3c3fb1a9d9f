"""The penalties of a module's own, in its own loss."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_dlopt import L1, L2, ElasticNet, RegularizationMixin, Technique, TechniqueError
from tests.regularization.regression import Regression, assert_close, fit


class Brought(RegularizationMixin, Regression):
    """Leaves it to the techniques."""


class InLoss(Brought):
    """Adds the penalty to its loss in some batches of an epoch."""

    batches = (0, 1, 2, 3)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss: Tensor = super().training_step(batch, batch_idx)
        if batch_idx in self.batches:
            loss = loss + self.regularization_loss()
        return loss


class OnlyLooks(Brought):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("penalty", self.regularization_loss())
        return super().training_step(batch, batch_idx)


def penalties() -> list[Technique]:
    return [L1(0.02), L2(0.03), ElasticNet(0.01, 0.02, ["net.2.*"])]


def test_the_value_and_the_gradient_are_those_of_the_techniques() -> None:
    module = Brought(regularization=penalties())
    first, second = module.net[0].weight, module.net[2]
    loss = module.regularization_loss()
    expected = 0.02 * (first.abs().sum() + second.weight.abs().sum())
    expected = expected + 0.03 * (first.square().sum() + second.weight.square().sum())
    for p in second.parameters():
        expected = expected + 0.01 * p.abs().sum() + 0.02 * p.square().sum()
    torch.testing.assert_close(loss, expected)
    parameters = [first, second.weight, second.bias]
    for left, right in zip(
        torch.autograd.grad(loss, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("arguments", [{}, {"accumulate_grad_batches": 2}], ids=str)
def test_in_the_loss_it_counts_once(arguments: Any) -> None:
    in_loss = fit(InLoss(regularization=penalties()), **arguments)
    assert_close(in_loss, fit(Brought(regularization=penalties()), **arguments))
    assert_close(in_loss, fit(Regression(), penalties(), **arguments))


def test_looking_changes_nothing() -> None:
    looked = fit(OnlyLooks(regularization=penalties()))
    assert_close(looked, fit(Brought(regularization=penalties())))


def test_a_second_fit_decides_anew() -> None:
    techniques = penalties()
    fit(InLoss(regularization=techniques))
    again = Brought(regularization=techniques)
    assert_close(fit(again), fit(Brought(regularization=penalties())))


def test_in_the_loss_of_a_compiled_module() -> None:
    module: Any = torch.compile(InLoss(regularization=penalties()), backend="eager")
    fit(module)
    assert_close(module._orig_mod, fit(Brought(regularization=penalties())))


class Manual(InLoss):
    """Two optimizers, and the penalty in the loss of the first one's batch only."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()  # type: ignore[misc]
        for optimizer in (first, second):
            optimizer.zero_grad()
        loss = Regression.training_step(self, batch, batch_idx) + self.regularization_loss()
        self.manual_backward(loss)
        first.step()
        second.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.net[i].parameters(), lr=0.1) for i in (0, 2)]


def test_manual_optimization_with_several_optimizers() -> None:
    module = fit(Manual(regularization=penalties()))
    reference = Brought(regularization=penalties(), make=lambda p: torch.optim.SGD(p, lr=0.1))
    assert_close(module, fit(reference))


def test_taking_it_up_later_is_refused() -> None:
    module = InLoss(regularization=penalties())
    module.batches = (2,)
    with pytest.raises(TechniqueError, match=r"L1\(.*after earlier steps had been penalized"):
        fit(module)


@pytest.mark.parametrize(
    "technique", [L1(0.1, method="proximal"), L2(0.1, ["*"], method="weight_decay")], ids=repr
)
def test_a_form_that_acts_elsewhere_is_refused(technique: Any) -> None:
    with pytest.raises(TechniqueError, match="would penalize once more"):
        fit(InLoss(regularization=technique))
    assert InLoss(regularization=technique).regularization_loss() > 0


def test_without_penalties_it_is_zero() -> None:
    assert InLoss().regularization_loss().item() == 0
    assert_close(fit(InLoss()), fit(Regression()))
