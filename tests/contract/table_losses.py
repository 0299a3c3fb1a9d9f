"""The rows of the techniques that change the training's cross-entropy."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import regularization as r
from tests.contract.row import Row
from tests.contract.run import EPOCHS, Outcome, Step
from tests.contract.tasks import (
    CLASSES,
    FEATURES,
    PLAIN,
    TASKS,
    ManualModule,
    Task,
    TupleModule,
)

#: The loss of a batch, from the module, its input and its target.
Formula = Callable[[TupleModule, Tensor, Tensor], Tensor]


def cross_entropy(module: TupleModule, x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(module.net(x), y)


def walk(outcome: Outcome, task: Task) -> Iterator[tuple[Step, TupleModule, Tensor, Tensor]]:
    """Give each optimizer step with a module in the state before it, and with its global batch."""
    module = task.module()
    steps = iter(outcome.steps)
    module.load_state_dict({**module.state_dict(), **outcome.initial})
    parameters = dict(module.named_parameters())
    loader = task.loader(train=True)
    for epoch in range(EPOCHS):
        loader.set_epoch(epoch)
        for batch in loader:
            for _ in module.rates if isinstance(module, ManualModule) else "1":
                step = next(steps)
                with torch.no_grad():
                    for name, tensor in step.before.items():
                        parameters[name].copy_(tensor)
                assert step.before
                if step.applied:  # there is none where the module skipped the batch
                    yield step, module, *module.unpack(batch)
                with torch.no_grad():
                    for name, tensor in step.after.items():
                        parameters[name].copy_(tensor)
    assert next(steps, None) is None


def gradient(formula: Formula, step: Step, module: TupleModule, x: Tensor, y: Tensor) -> Tensor:
    """Return the formula's gradient for the parameters that the step moves, in one vector."""
    named = {name: p for name, p in module.named_parameters() if name in step.before}
    trained = [p for p in named.values() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(formula(module, x, y), trained)])


def raw(step: Step, module: TupleModule) -> Tensor:
    trained = [n for n, p in module.named_parameters() if n in step.before and p.requires_grad]
    return torch.cat([step.raw[name].flatten().float() for name in trained])


def draws_masks(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Dropout) and part.p > 0 for part in module.modules())


def gradients_follow(formula: Formula) -> Callable[[Outcome, Task], None]:
    """Every step's gradient is that of the formula, and clearly not that of cross-entropy."""

    def effect(outcome: Outcome, task: Task) -> None:
        errors, changes = [], []
        if draws_masks(task.module()):
            follows_on_average(outcome, task, formula)
            return
        for step, module, x, y in walk(outcome, task):
            got, expected = raw(step, module), gradient(formula, step, module, x, y)
            errors.append(float((got - expected).norm() / expected.norm()))
            plain = gradient(cross_entropy, step, module, x, y)
            changes.append(float((plain - expected).norm() / expected.norm()))
        assert max(errors) < 0.05, "another gradient"  # what bfloat16 leaves of it
        assert min(changes) > 0.1, "the task doesn't tell it from plain cross-entropy"

    return effect


SAMPLES = 200


def follows_on_average(outcome: Outcome, task: Task, formula: Formula) -> None:
    """Where the masks aren't known, the gradient is the formula's on average over masks.

    What the formula adds to the gradient of cross-entropy must be found in the steps' gradients:
    1 time if it is all there, 0 times if none of it is; the masks of 18 steps leave some noise.
    """
    along, size = 0.0, 0.0
    for step, module, x, y in walk(outcome, task):
        many = x.repeat(SAMPLES, 1), y.repeat(SAMPLES)
        plain = gradient(cross_entropy, step, module, *many)
        extra = gradient(formula, step, module, *many) - plain
        along += float((raw(step, module) - plain) @ extra)
        size += float(extra @ extra)
    assert 0.6 < along / size < 1.4, f"{along / size:.2f} of what the formula adds"


SMOOTHING = 0.6


def smoothed(module: TupleModule, x: Tensor, y: Tensor) -> Tensor:
    target = torch.full((len(y), CLASSES), SMOOTHING / CLASSES)
    target[torch.arange(len(y)), y] += 1 - SMOOTHING
    return -(target * module.net(x).log_softmax(1)).sum(1).mean()


class Teacher(nn.Linear):
    """Knows the answer to a question that the labels don't ask."""

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)
        generator = torch.Generator().manual_seed(3)
        for parameter in self.parameters():
            parameter.data = 2 * torch.randn(parameter.shape, generator=generator)


TEACHER, TEMPERATURE, WEIGHT = Teacher(), 2.0, 0.8


def distilled(module: TupleModule, x: Tensor, y: Tensor) -> Tensor:
    logits = module.net(x)
    with torch.no_grad():
        p = (TEACHER(x) / TEMPERATURE).softmax(1)
    q = (logits / TEMPERATURE).softmax(1)
    kl = (p * (p / q).log()).sum(1).mean()
    return (1 - WEIGHT) * functional.cross_entropy(logits, y) + WEIGHT * TEMPERATURE**2 * kl


ALPHA = 4.0


def agreeing(module: TupleModule, x: Tensor, y: Tensor) -> Tensor:
    one, two = module.net(x), module.net(x)
    p, q = one.softmax(1), two.softmax(1)
    divergence = ((p - q) * (p / q).log()).sum(1).mean() / 2
    mean = functional.cross_entropy(torch.cat([one, two]), torch.cat([y, y]))
    return mean + ALPHA * divergence


def passes_agree(outcome: Outcome, task: Task) -> None:
    """Without dropout there is nothing to agree on, and the gradient is the plain one."""
    if draws_masks(task.module()):
        follows_on_average(outcome, task, agreeing)
        return
    for step, module, x, y in walk(outcome, task):
        plain = gradient(cross_entropy, step, module, x, y)
        assert (raw(step, module) - plain).norm() < 0.05 * plain.norm(), "another gradient"


MIXIN = (r.RegularizationMixin, "regularization")

LOSSES_ROWS = [
    Row(
        technique=r.LabelSmoothing,
        make=lambda: r.LabelSmoothing(SMOOTHING),
        neutral=lambda: r.LabelSmoothing(0.0),
        effect=gradients_follow(smoothed),
        useless=lambda: r.LabelSmoothing(0),
        useless_task=PLAIN,
        rivals=[lambda: r.LabelSmoothing(0.25)],
        bad=[("smoothing", {"smoothing": value}) for value in (-0.1, 1.5, float("nan"), "a", True)],
        refuses=frozenset({"compiled"}),
        mixin=MIXIN,
    ),
    Row(
        technique=r.RDrop,
        make=lambda: r.RDrop(ALPHA),
        neutral=lambda: r.RDrop(0.0),
        effect=passes_agree,
        useless=lambda: r.RDrop(ALPHA),
        useless_task=PLAIN,
        rivals=[lambda: r.RDrop(0.25)],
        bad=[("alpha", {"alpha": value}) for value in (-1, float("inf"), "much", None)],
        refuses=frozenset({"compiled", "manual", "manual_scheduled"}),
        mixin=MIXIN,
        task=TASKS["dropout"],
    ),
    Row(
        technique=r.Distillation,
        make=lambda: r.Distillation(TEACHER, TEMPERATURE, WEIGHT),
        neutral=lambda: r.Distillation(TEACHER, TEMPERATURE, 0.0),
        effect=gradients_follow(distilled),
        useless=lambda: r.Distillation(TEACHER, TEMPERATURE, 0),
        useless_task=PLAIN,
        rivals=[lambda: r.Distillation(TEACHER, 1.0, 0.25)],
        bad=[
            (name, {"teacher": TEACHER, "temperature": 2.0, "weight": 0.5, name: value})
            for name, value in [
                ("teacher", "resnet"),
                ("temperature", 0),
                ("temperature", float("inf")),
                ("weight", 1.5),
                ("weight", -0.5),
                ("input_key", 1.5),
                ("checkpoint", ""),
                ("checkpoint_prefix", 3),
            ]
        ],
        refuses=frozenset({"compiled"}),
        mixin=MIXIN,
    ),
]
