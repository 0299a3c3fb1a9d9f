"""The rows of L1, L2 and Elastic Net, each with its formula written by hand."""

import math
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt import regularization as r
from tests.contract.row import Row
from tests.contract.run import Outcome, build
from tests.contract.tasks import PLAIN, Task

LASSO, RIDGE, NET = 0.02, 0.05, (0.03, 0.04)

STRENGTH = [("strength", value) for value in (-1, math.nan, math.inf, "much", True, None)]
SELECTION = [("parameters", value) for value in ("biases", [], [3], 1)]
FORMS = [("compile", "yes"), ("compile", 1)]


def optimizers_of(task: Task) -> tuple[Any, list[torch.optim.Optimizer]]:
    module = build(task)
    configured = module.configure_optimizers()
    if isinstance(configured, dict):
        configured = configured["optimizer"]
    return module, configured if isinstance(configured, list) else [configured]


def frozen(task: Task) -> set[str]:
    module, _ = optimizers_of(task)
    return {name for name, parameter in module.named_parameters() if not parameter.requires_grad}


def adds(l1: float, l2: float) -> Any:
    """Every weight's gradient is the loss's and the penalty's; a bias's is the loss's alone."""

    def effect(outcome: Outcome, task: Task) -> None:
        seen = 0
        for step in outcome.steps:
            for name, applied in step.applied.items():
                expected, w = step.raw[name], step.before[name]
                if w.dim() > 1:
                    above, below = (w > 0).to(w.dtype), (w < 0).to(w.dtype)
                    expected = expected + l1 * (above - below) + l2 * (w + w)
                    seen += 1
                torch.testing.assert_close(applied, expected)
            for name in step.before.keys() - step.applied.keys():
                assert torch.equal(step.before[name], step.after[name]), "penalized without a step"
        assert seen >= 20, "no step was penalized"

    return effect


def shrinks(l1: float, l2: float) -> Any:
    """After each step the weights are the proximal point of where the optimizer put them."""

    def proximal(w: Tensor, rate: float) -> Tensor:
        near = (w.abs() - rate * l1).clamp(min=0)
        return torch.copysign(near, w) / (1 + 2 * rate * l2)

    def effect(outcome: Outcome, task: Task) -> None:
        # the same optimizers, made anew, take every step once more from where it began
        module, optimizers = optimizers_of(task)
        parameters = dict(module.named_parameters())
        fixed, zeros = frozen(task), 0
        for step, rates in zip(outcome.steps, outcome.rates, strict=True):
            every = [(one, group) for one in optimizers for group in one.param_groups]
            rate_of: dict[int, float] = {}
            for rate, (_, group) in zip(rates, every, strict=True):
                group["lr"] = rate
                rate_of.update({id(p): rate for p in group["params"]})
            for name, parameter in parameters.items():
                if name in step.before:
                    parameter.data.copy_(step.before[name])
                applied = step.applied.get(name)
                parameter.grad = None if applied is None else applied.clone()
                if applied is not None:
                    assert torch.equal(applied, step.raw[name]), "a gradient was changed"
            for optimizer in optimizers:
                optimizer.step()
            for name, after in step.after.items():
                expected = parameters[name].detach()
                if step.applied and expected.dim() > 1 and name not in fixed:
                    expected = proximal(expected, rate_of[id(parameters[name])])
                    zeros += int((after == 0).sum())
                torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-7)
        assert zeros > 0, "no weight became zero"

    return effect


PENALTY_ROWS = [
    Row(
        technique=r.L1,
        make=lambda: r.L1(LASSO),
        neutral=lambda: r.L1(0.0),
        effect=adds(LASSO, 0.0),
        useless=lambda: r.L1(0.0),
        useless_task=PLAIN,
        rivals=[],
        bad=[
            (name, {"strength": LASSO, name: value})
            for name, value in [*STRENGTH, *SELECTION, *FORMS, ("method", "lasso"), ("method", 1)]
        ],
        mixin=(r.RegularizationMixin, "regularization"),
    ),
    Row(
        technique=r.L2,
        make=lambda: r.L2(RIDGE),
        neutral=lambda: r.L2(0.0),
        effect=adds(0.0, RIDGE),
        useless=lambda: r.L2(0.0),
        useless_task=PLAIN,
        rivals=[],
        bad=[
            (name, {"strength": RIDGE, name: value})
            for name, value in [*STRENGTH, *SELECTION, ("method", "proximal")]
        ],
        mixin=(r.RegularizationMixin, "regularization"),
    ),
    Row(
        technique=r.ElasticNet,
        make=lambda: r.ElasticNet(*NET, method="proximal"),
        neutral=lambda: r.ElasticNet(0.0, 0.0, method="proximal"),
        effect=shrinks(*NET),
        useless=lambda: r.ElasticNet(0.0, 0.0),
        useless_task=PLAIN,
        rivals=[],
        bad=[
            (name, {"l1": 0.1, "l2": 0.1, name: value})
            for name, value in [
                *(("l1", value) for _, value in STRENGTH),
                *(("l2", value) for _, value in STRENGTH),
                *SELECTION,
                *FORMS,
                ("method", "gradient"),
            ]
        ],
        mixin=(r.RegularizationMixin, "regularization"),
    ),
]
