"""The rows of what looks around the weights or averages them, each redone by hand."""

import math
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt import optimizers as o
from tests.contract.row import Row
from tests.contract.run import Outcome, build
from tests.contract.tasks import BATCH, BATCHES, PLAIN, Task

RHO = 0.5
DECAY = 0.75


def plain_gradients(module: torch.nn.Module, batch: object, index: int) -> dict[str, Tensor]:
    """Return the loss's gradients by name; none where the module skips the batch."""
    module.zero_grad()
    output = module.training_step(batch, index)  # type: ignore[operator]
    if output is None:
        return {}
    (output["loss"] if isinstance(output, dict) else output).backward()
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def gradients_are_of_the_worst_point(outcome: Outcome, task: Task) -> None:
    """Every gradient is the loss's at ``w + rho * g / norm(g)``, batch by batch."""
    module = build(task)
    parts = len(outcome.batches) // len(outcome.steps)  # micro-batches of each step
    loader = task.loader(train=True, batch_size=BATCH // parts)
    batches = (batch for _ in cycle([0]) for batch in loader)
    assert outcome.steps, "no step was made"
    for number, step in enumerate(outcome.steps):
        near = {name: torch.zeros_like(raw) for name, raw in step.raw.items()}
        here = {name: torch.zeros_like(raw) for name, raw in step.raw.items()}
        skipped = False
        for part in range(parts):
            index = (number * parts + part) % (BATCHES * parts)
            module.load_state_dict(step.before, strict=False)
            batch, draws = next(batches), torch.get_rng_state()
            first = plain_gradients(module, batch, index)
            if not first:
                skipped = True
                continue
            norm = torch.cat([g.flatten() for g in first.values()]).norm()
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    if name in first:
                        parameter.add_(first[name] * (RHO / norm))
            torch.set_rng_state(draws)
            second = plain_gradients(module, batch, index)
            for name in near:
                near[name] += second[name] / parts
                here[name] += first[name] / parts
        if skipped:
            continue
        for name, raw in step.raw.items():
            gap = (here[name] - near[name]).norm()
            error = (raw - near[name]).norm()
            # rounding to 16 bits is the largest error there may be
            assert error <= 0.02 * near[name].norm() + 1e-5, f"step {number}: {name}"
            assert error < 0.3 * gap or gap < 1e-5, f"step {number}: {name}"


def the_end_is_the_average(outcome: Outcome, task: Task) -> None:
    """The weights at the end are the moving average of those after each step."""
    assert outcome.steps, "no step was made"
    averages: dict[str, Tensor] = {}
    for step in outcome.steps:
        for name, value in step.after.items():
            average = averages.get(name, value)
            averages[name] = DECAY * average + (1 - DECAY) * value
    for name, average in averages.items():
        torch.testing.assert_close(outcome.weights[name], average)
    last = outcome.steps[-1].after
    assert any(not torch.equal(outcome.weights[name], last[name]) for name in last)


def optimizers_of(module: Any) -> list[Any]:
    made = module.configure_optimizers()
    made = made["optimizer"] if isinstance(made, dict) else made
    return made if isinstance(made, list) else [made]


def weights_return_half_way(outcome: Outcome, task: Task) -> None:
    """Each step is the optimizer's own, and every third ends half way from where they began."""
    module = build(task)
    assert outcome.steps, "no step was made"
    slow: dict[str, Tensor] = {}
    counts = [0] * len(optimizers := optimizers_of(module))
    names = {id(p): name for name, p in module.named_parameters()}
    for step, rates in zip(outcome.steps, outcome.rates, strict=True):
        groups = [group for one in optimizers for group in one.param_groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        owned = [
            {names[id(p)] for g in one.param_groups for p in g["params"]} for one in optimizers
        ]
        index = owned.index(set(step.before))
        for name, before in step.before.items():
            slow.setdefault(name, before)
        module.load_state_dict(step.before, strict=False)
        for name, parameter in module.named_parameters():
            parameter.grad = step.applied.get(name)
        optimizers[index].step()
        counts[index] += bool(step.applied)
        fast = {name: p.detach().clone() for name, p in module.named_parameters()}
        if step.applied and counts[index] % 3 == 0:
            for name in step.after:
                slow[name] = fast[name] = 0.5 * slow[name] + 0.5 * fast[name]
        for name, after in step.after.items():
            torch.testing.assert_close(after, fast[name], msg=name)
    assert max(counts) >= 9


AVERAGING_ROWS = [
    Row(
        technique=o.Lookahead,
        make=lambda: o.Lookahead(3, 0.5),
        neutral=lambda: o.Lookahead(3, 1.0),
        effect=weights_return_half_way,
        useless=lambda: o.Lookahead(3, 1.0),
        useless_task=PLAIN,
        rivals=[lambda: o.Lookahead(4)],
        bad=[
            ("k", {"k": 0}),
            ("k", {"k": 2.5}),
            ("k", {"k": "often"}),
            ("alpha", {"alpha": 0.0}),
            ("alpha", {"alpha": 1.5}),
            ("alpha", {"alpha": math.nan}),
            ("alpha", {"alpha": "half"}),
        ],
        refuses=frozenset({"sharded"}),
        mixin=(o.OptimizerMixin, "optimization"),
    ),
    Row(
        technique=o.EMA,
        make=lambda: o.EMA(DECAY),
        neutral=lambda: o.EMA(0.0),
        effect=the_end_is_the_average,
        useless=lambda: o.EMA(0.0),
        useless_task=PLAIN,
        rivals=[lambda: o.EMA(0.5)],
        bad=[
            ("decay", {"decay": 1.0}),
            ("decay", {"decay": -0.1}),
            ("decay", {"decay": math.nan}),
            ("decay", {"decay": "slow"}),
            ("every", {"decay": 0.9, "every": 0}),
            ("every", {"decay": 0.9, "every": 0.5}),
            ("start", {"decay": 0.9, "start": -1}),
            ("start", {"decay": 0.9, "start": "soon"}),
        ],
        refuses=frozenset({"sharded"}),
        mixin=(o.OptimizerMixin, "optimization"),
    ),
    Row(
        technique=o.SAM,
        make=lambda: o.SAM(RHO),
        neutral=lambda: o.SAM(0.0),
        effect=gradients_are_of_the_worst_point,
        useless=lambda: o.SAM(0.0),
        useless_task=PLAIN,
        rivals=[lambda: o.SAM(0.25)],
        bad=[
            ("rho", {"rho": -0.1}),
            ("rho", {"rho": math.inf}),
            ("rho", {"rho": math.nan}),
            ("rho", {"rho": "far"}),
            ("adaptive", {"adaptive": 1}),
            ("every", {"every": 0}),
            ("every", {"every": 1.5}),
        ],
        refuses=frozenset({"manual", "manual_scheduled", "sharded"}),
        mixin=(o.OptimizerMixin, "optimization"),
        differs={"accumulation": "each micro-batch is moved by its own gradient (m-sharpness)"},
    ),
]
