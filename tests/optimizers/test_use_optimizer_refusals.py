"""What UseOptimizer refuses."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam

from lightning_dlopt import Muon, UseOptimizer
from lightning_dlopt.core import ArgumentError, ConflictError, TechniqueError
from lightning_dlopt.optimizers import use_optimizer
from tests.optimizers.grouped import DECAYING
from tests.optimizers.toy import Toy, fit, toy


class Two(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        return SGD(self.net[0].parameters()), SGD(self.net[3].parameters())


class NoOptimizer(Toy):
    def configure_optimizers(self) -> Any:
        return None


class Foreign(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(2, 2)]  # not registered

    def configure_optimizers(self) -> Any:
        return SGD([*self.parameters(), *self.hidden[0].parameters()])


@pytest.mark.parametrize(
    ("cls", "make", "arguments", "why"),
    [
        (Two, SGD, {}, "Two has 2 optimizers"),
        (NoOptimizer, SGD, {}, "NoOptimizer has no optimizer"),
        (Foreign, SGD, {}, r"aren't the module's, of shape \(2, 2\), \(2,\)"),
        (Toy, lambda _: "an optimizer", {}, "is no torch optimizer"),
        (Toy, lambda params: SGD(p for p in params), {"no_decay": ["nothing"]}, "nothing"),
        (Toy, lambda params: SGD(params, lr=-1), {}, "Invalid learning rate: -1"),
        (Toy, lambda params: SGD([{"params": [p]} for p in params]), {}, "keep the parameters"),
        (Toy, LBFGS, {"layer_decay": 0.5}, "LBFGS doesn't support per-parameter options"),
        *([(Toy, torch.optim.Muon, {}, "2D")] if hasattr(torch.optim, "Muon") else []),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(
    cls: Any, make: Any, arguments: Any, why: str
) -> None:
    module = toy(cls)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(TechniqueError, match=rf"UseOptimizer.*{why}"):
        fit(module, UseOptimizer(make, **arguments))
    assert all(torch.equal(before[name], module.state_dict()[name]) for name in before)
    assert "configure_optimizers" not in vars(module)


@pytest.mark.parametrize(
    ("make", "arguments", "refused"),
    [
        (DECAYING, {}, True),
        (Muon, {"no_decay": None}, True),
        (DECAYING, {"no_decay": ["*.bias"]}, False),
        (partial(SGD, lr=0.1), {}, False),
    ],
)
def test_flat_parameters_are_refused_where_shapes_matter(
    make: Any, arguments: Any, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # FSDP's first form runs on accelerators only; another module stands in for its wrapper
    monkeypatch.setattr(use_optimizer, "FullyShardedDataParallel", nn.Tanh)
    if not refused:
        fit(toy(), UseOptimizer(make, **arguments))
        return
    with pytest.raises(TechniqueError, match="FSDP's flat parameters"):
        fit(toy(), UseOptimizer(make, **arguments))


@pytest.mark.parametrize("bad", [partial(SGD, lr=-1.0), partial(Adam, momentum=0.9)])
def test_bad_arguments_of_the_optimizer_raise_at_once(bad: Any) -> None:
    with pytest.raises(ArgumentError, match="UseOptimizer: optimizer"):
        UseOptimizer(bad)


def test_two_raise() -> None:
    with pytest.raises(ConflictError, match="choice of the optimizer"):
        fit(toy(), UseOptimizer(SGD), UseOptimizer(Adam))
