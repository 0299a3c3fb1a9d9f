"""The row of UseOptimizer, with its steps written by hand."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW

from lightning_dlopt.optimizers import OptimizerMixin, UseOptimizer
from tests.contract.row import Row
from tests.contract.run import Outcome
from tests.contract.tasks import RATE, SPECIAL, GroupsModule, Task

NEW_RATE, MOMENTUM, DECAY, LAYER_DECAY = 0.05, 0.8, 0.1, 0.5


def make(**arguments: Any) -> UseOptimizer:
    optimizer = partial(SGD, lr=NEW_RATE, momentum=MOMENTUM, weight_decay=DECAY)
    return UseOptimizer(optimizer, **{"layer_decay": LAYER_DECAY, **arguments})


#: What each layer's rate is of NEW_RATE: halved for every layer after it.
FACTORS = {"net.0": 1 / 2, "net.1": 1 / 2, "net.3": 1.0, "net.4": 1.0}
#: Here the last layer trains, by the module's will, at a tenth of what the others do, and the
#: third, which is frozen, doesn't count.
GROUPS_FACTORS = {"net.0": 1 / 8, "net.1": 1 / 4, "net.3": 1 / 2, "net.5": 1 / 10}


def takes_momentum_steps(outcome: Outcome, task: Task) -> None:
    """Every step is SGD's with momentum, at each layer's rate, and decays the matrices only."""
    assert outcome.steps
    factors = GROUPS_FACTORS if task.module is GroupsModule else FACTORS
    velocity: dict[str, Tensor] = {}
    moved = False
    for step in outcome.steps:
        for name, before in step.before.items():
            expected = before
            if name in step.applied:
                decay = DECAY if before.dim() >= 2 else 0.0
                gradient = step.applied[name] + decay * before
                velocity[name] = gradient + MOMENTUM * velocity.get(name, torch.zeros(()))
                rate = NEW_RATE * factors[name.rpartition(".")[0]]
                expected = before - rate * velocity[name]
                moved = moved or not torch.equal(before, expected)
            torch.testing.assert_close(step.after[name], expected, rtol=1e-5, atol=1e-6, msg=name)
    assert moved


USE_OPTIMIZER_ROWS = [
    Row(
        technique=UseOptimizer,
        make=make,
        neutral=lambda: UseOptimizer(partial(AdamW, lr=RATE, fused=False), no_decay=None),
        effect=takes_momentum_steps,
        useless=lambda: UseOptimizer(partial(SGD, lr=0.0)),
        useless_task=SPECIAL["zero_rate"],
        rivals=[lambda: UseOptimizer(AdamW)],
        bad=[
            ("optimizer", {"optimizer": "Adam"}),
            ("optimizer", {"optimizer": None}),
            ("no_decay", {"optimizer": SGD, "no_decay": "biases"}),
            ("no_decay", {"optimizer": SGD, "no_decay": 3}),
            ("no_decay", {"optimizer": SGD, "no_decay": []}),
            ("layer_decay", {"optimizer": SGD, "layer_decay": 0}),
            ("layer_decay", {"optimizer": SGD, "layer_decay": 1.5}),
            ("layer_decay", {"optimizer": SGD, "layer_decay": "half"}),
        ],
        refuses=frozenset({"manual", "manual_scheduled"}),
        mixin=(OptimizerMixin, "optimization"),
    )
]
