"""The rows of gradient clipping, each with the clip written by hand, one tensor at a time."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_dlopt import optimizers as o
from tests.contract.row import Row
from tests.contract.run import Outcome, Step
from tests.contract.tasks import PLAIN, Task

Gradients = dict[str, Tensor]


def norm(gradients: Gradients) -> float:
    return math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values()))


def clips(reference: Callable[[Step, list[Step]], Gradients]) -> Callable[[Outcome, Task], None]:
    """The applied gradients are the loss's, clipped by hand; and some were really clipped."""

    def effect(outcome: Outcome, task: Task) -> None:
        assert outcome.steps
        clipped = 0
        for index, step in enumerate(outcome.steps):
            expected = reference(step, outcome.steps[: index + 1])
            for name, applied in step.applied.items():
                torch.testing.assert_close(applied, expected[name], rtol=1e-4, atol=1e-7)
                clipped += int((applied - step.raw[name]).abs().max() > 1e-6)
        assert clipped, "nothing was clipped"

    return effect


def scaled(gradients: Gradients, factor: float) -> Gradients:
    return {name: gradient * min(1.0, factor) for name, gradient in gradients.items()}


def by_norm(step: Step, so_far: list[Step]) -> Gradients:
    present = used(step)
    return scaled(present, 0.3 / max(norm(present), 1e-30))


def used(step: Step) -> Gradients:
    """Return the gradients that this optimizer has; another one's are not its to clip."""
    return {name: gradient for name, gradient in step.raw.items() if name in step.applied}


def by_value(step: Step, so_far: list[Step]) -> Gradients:
    return {name: gradient.clamp(-0.02, 0.02) for name, gradient in used(step).items()}


def by_unit(step: Step, so_far: list[Step]) -> Gradients:
    clipped = {}
    for name, gradient in used(step).items():
        weight = step.before[name]
        units = zip(weight, gradient, strict=True) if weight.dim() > 1 else [(weight, gradient)]
        rows = []
        for unit_weight, unit_gradient in units:
            limit = 0.05 * max(float(unit_weight.norm()), 1e-3)
            rows.append(unit_gradient * min(1.0, limit / max(float(unit_gradient.norm()), 1e-30)))
        clipped[name] = torch.stack(rows) if weight.dim() > 1 else rows[0]
    return clipped


def by_quantile(step: Step, so_far: list[Step]) -> Gradients:
    norms = [norm(used(earlier)) for earlier in so_far if earlier.applied]
    limit = float(np.percentile(norms[-5:], 50)) if norms else 1.0
    return scaled(used(step), limit / max(norm(used(step)), 1e-30))


def row(
    cls: type[o.GradientClip],
    arguments: Mapping[str, Any],
    neutral: Mapping[str, Any],
    reference: Callable[[Step, list[Step]], Gradients],
    bad: list[tuple[str, Any]],
) -> Row:
    """Return a clipping's row; ``bad`` are (argument, value) put in place of a good one."""
    return Row(
        technique=cls,
        make=lambda: cls(**arguments),
        neutral=lambda: cls(**neutral),
        effect=clips(reference),
        useless=lambda: cls(**neutral),
        useless_task=PLAIN,
        rivals=[lambda: o.ClipGradNorm(0.125), lambda: o.ClipGradValue(0.125)],
        trainer_rivals=[{"gradient_clip_val": 1.0}],
        bad=[(name, {**arguments, name: value}) for name, value in [*bad, ("replace", 1)]],
        refuses=frozenset({"manual", "manual_scheduled"}),
        mixin=(o.OptimizerMixin, "optimization"),
    )


CLIPPING_ROWS = [
    row(
        o.ClipGradNorm,
        {"max_norm": 0.3},
        {"max_norm": math.inf},
        by_norm,
        [("max_norm", 0), ("max_norm", -1), ("max_norm", math.nan), ("max_norm", "small")],
    ),
    row(
        o.ClipGradValue,
        {"clip_value": 0.02},
        {"clip_value": math.inf},
        by_value,
        [("clip_value", 0), ("clip_value", math.nan), ("clip_value", True)],
    ),
    row(
        o.AdaptiveClip,
        {"clip_factor": 0.05},
        {"clip_factor": math.inf},
        by_unit,
        [
            ("clip_factor", 0),
            ("eps", 0),
            ("eps", math.inf),
            ("exclude_last", "yes"),
            ("parameters", "biases"),
            ("parameters", []),
            ("parameters", 3),
        ],
    ),
    row(
        o.QuantileClip,
        {"quantile": 0.5, "history": 5},
        {"quantile": 1.0},
        by_quantile,
        [("quantile", 0), ("quantile", 1.5), ("history", 1), ("history", 2.5)],
    ),
]
