"""A scheduler that the module brings sets the rates it would set, had it been built anew."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.optim import SGD, Optimizer
from torch.optim import lr_scheduler as s

from lightning_dlopt import UseOptimizer
from lightning_dlopt.core import TechniqueError
from tests.optimizers.toy import Toy, fit, toy

Make = Callable[[Optimizer], Any]

MAKES: dict[str, Make] = {
    "lambda": lambda o: s.LambdaLR(o, lambda k: (k + 1) / 4),
    "lambda_by_group": lambda o: s.LambdaLR(
        o, [lambda k, n=n: 1 / (k + n + 1) for n in range(len(o.param_groups))]
    ),
    "multiplicative": lambda o: s.MultiplicativeLR(o, lambda _: 0.9),
    "step": lambda o: s.StepLR(o, 2),
    "multi_step": lambda o: s.MultiStepLR(o, [1, 3]),
    "constant": lambda o: s.ConstantLR(o, 0.5, 2),
    "linear": lambda o: s.LinearLR(o, 0.25, total_iters=3),
    "exponential": lambda o: s.ExponentialLR(o, 0.8),
    "polynomial": lambda o: s.PolynomialLR(o, 5, 2.0),
    "cosine": lambda o: s.CosineAnnealingLR(o, 6, eta_min=1e-4),
    "restarts": lambda o: s.CosineAnnealingWarmRestarts(o, 2, 2),
    "sequential": lambda o: s.SequentialLR(
        o, [s.LinearLR(o, 0.25, total_iters=2), s.CosineAnnealingLR(o, 4)], [2]
    ),
    "nested": lambda o: s.ChainedScheduler(
        [
            s.SequentialLR(o, [s.ConstantLR(o, 0.25, 2), s.StepLR(o, 2)], [2]),
            s.ExponentialLR(o, 0.9),
        ]
    ),
    "chained": lambda o: s.ChainedScheduler([s.ConstantLR(o, 0.5, 2), s.ExponentialLR(o, 0.9)]),
}


class Rates(Callback):
    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.seen.append([float(group["lr"]) for group in optimizer.param_groups])


def module_with(make: Make, form: str = "dict", monitor: bool = False) -> Any:
    class Scheduled(Toy):
        def configure_optimizers(self) -> Any:
            last = list(self.net[5].parameters())
            rest = [p for p in self.parameters() if not any(p is q for q in last)]
            # the second group at half the rate
            optimizer = SGD([{"params": last}, {"params": rest, "lr": 2.0}], lr=4.0)
            entry = {"scheduler": make(optimizer), "interval": "step"}
            if monitor:
                entry["monitor"] = "loss"
            if form == "lists":
                return [optimizer], [entry]
            return {"optimizer": optimizer, "lr_scheduler": entry}

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("loss", 1.0)
            return super().training_step(batch, batch_idx)

    return toy(Scheduled)


@pytest.mark.parametrize("form", ["dict", "lists"])
@pytest.mark.parametrize("name", MAKES)
def test_rates_are_those_of_a_scheduler_built_over_the_new_optimizer(name: str, form: str) -> None:
    # the module's second group is parted in two by weight decay
    fresh = SGD([{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(2)], lr=0.1)
    fresh.param_groups[1]["lr"] = 0.05
    scheduler = MAKES[name](fresh)
    expected = []
    for _ in range(6):
        one, two = (float(group["lr"]) for group in fresh.param_groups)
        expected.append([one, one, two, two])
        fresh.step()
        scheduler.step()
    rates = Rates()
    optimizer = partial(SGD, lr=0.1, weight_decay=0.1)
    trainer = fit(module_with(MAKES[name], form), UseOptimizer(optimizer), rates)
    assert rates.seen == [pytest.approx(row) for row in expected]
    (config,) = trainer.lr_scheduler_configs
    assert config.scheduler.optimizer is trainer.optimizers[0]


def test_plateau_lowers_the_new_rates_to_its_own_floors() -> None:
    rates = Rates()
    make: Make = lambda o: s.ReduceLROnPlateau(o, patience=0, factor=0.1, min_lr=[0.02, 0.004])  # noqa: E731
    module = module_with(make, monitor=True)
    fit(module, UseOptimizer(partial(SGD, lr=0.1, weight_decay=0.1)), rates)
    assert rates.seen[0] == pytest.approx([0.1, 0.1, 0.05, 0.05])
    assert rates.seen[-1] == pytest.approx([0.02, 0.02, 0.004, 0.004])


class Own(s.StepLR):
    """A class of the module's author; what it keeps of its optimizer, nobody knows."""


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda o: s.OneCycleLR(o, 1.0, total_steps=6), "OneCycleLR sets rates of its own"),
        (lambda o: s.CyclicLR(o, 0.1, 1.0), "CyclicLR sets rates of its own"),
        (lambda o: Own(o, 2), "Own is not one of torch's"),
        (lambda _: object(), "object is not one of torch's"),
        (lambda o: s.ChainedScheduler([s.StepLR(o, 2), Own(o, 2)]), "Own is not one of torch's"),
        (lambda o: s.SequentialLR(o, [s.StepLR(o, 2), Own(o, 2)], [3]), "SequentialLR holds Own"),
        (lambda _: s.StepLR(SGD([torch.nn.Parameter(torch.ones(1))]), 2), "another optimizer"),
    ],
)
def test_schedulers_that_would_go_wrong_are_refused(make: Make, why: str) -> None:
    module = module_with(make)
    # what belongs to another optimizer Lightning would refuse later, too
    with pytest.raises(TechniqueError, match=why):
        fit(module, UseOptimizer(SGD))


def test_a_scheduler_that_was_stepped_is_refused() -> None:
    def make(optimizer: Optimizer) -> Any:
        scheduler = s.StepLR(optimizer, 2)
        optimizer.step()
        scheduler.step()
        return scheduler

    with pytest.raises(TechniqueError, match="stepped before"):
        fit(module_with(make), UseOptimizer(SGD))
