"""The rows of the techniques that say when and with what gradient the optimizer steps."""

import contextlib
import dataclasses
from functools import lru_cache
from typing import Any

import torch
from schedulefree import SGDScheduleFree
from torch import Tensor

from lightning_dlopt import optimizers as o
from lightning_dlopt.schedules import CosineLR
from tests.contract.row import Row
from tests.contract.run import EPOCHS, Outcome, build
from tests.contract.tasks import (
    BATCHES,
    PLAIN,
    RATE,
    SAMPLES,
    SPECIAL,
    ManualModule,
    ShapedLoader,
    Task,
    TupleModule,
)

MIXIN = (o.OptimizerMixin, "optimization")


# ---- FullBatch ----


class OneBatchTask(Task):
    """All samples come in one batch."""

    def loader(self, *, train: bool, batch_size: int = SAMPLES, **arguments: Any) -> ShapedLoader:
        return super().loader(train=train, batch_size=SAMPLES, **arguments)


def gradients_of_passes(
    outcome: Outcome, task: Task, dtype: torch.dtype | None, scale: float
) -> list[dict[str, Tensor]]:
    """Return each pass's gradient at the weights that the run had, by a loop over its batches."""
    module = build(task)  # seeds, so dropout draws the masks of the run
    passes = []
    for epoch, step in enumerate(outcome.steps):
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(step.before.get(name, outcome.initial[name]))
        module.zero_grad()
        loader = task.loader(train=True)
        loader.set_epoch(epoch)
        trained_on = 0
        for index, batch in enumerate(loader):
            with torch.autocast("cpu", dtype) if dtype else contextlib.nullcontext():
                output = module.training_step(batch, index)
            if output is not None:
                loss = output["loss"] if isinstance(output, dict) else output
                (loss / BATCHES * scale).backward()  # all batches have the same size
                trained_on += 1
        named = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        passes.append({name: grad * (BATCHES / trained_on / scale) for name, grad in named.items()})
    return passes


def steps_are_passes(outcome: Outcome, task: Task) -> None:
    """There is one step for each epoch, and its gradient is that of the whole training set."""
    assert len(outcome.steps) == EPOCHS

    def check(dtype: torch.dtype | None, scale: float = 1.0) -> None:
        expected = gradients_of_passes(outcome, task, dtype, scale)
        for step, gradients in zip(outcome.steps, expected, strict=True):
            assert step.applied
            for name, applied in step.applied.items():
                torch.testing.assert_close(applied, step.raw[name], rtol=0, atol=0)
                torch.testing.assert_close(applied, gradients[name], rtol=1e-4, atol=1e-6)

    try:
        check(None)
    except AssertionError:
        # what was rounded to 16 bits must have been rounded here, too
        try:
            check(torch.bfloat16)
        except AssertionError:
            check(torch.float16, scale=1024.0)


# ---- FreezeLayers ----


def first_layer_waits(outcome: Outcome, task: Task) -> None:
    """Nothing touches the first layer in the first epoch; from then on it trains."""
    steps_a_batch = len(task.module.rates) if issubclass(task.module, ManualModule) else 1
    assert len(outcome.steps) == EPOCHS * BATCHES * steps_a_batch
    trained: list[set[str]] = [set(), set()]
    for index, step in enumerate(outcome.steps):
        later = index >= BATCHES * steps_a_batch
        trained[later] |= set(step.applied)
        for name, before in step.before.items():
            if name.startswith("net.0.") and not later:
                assert name not in step.raw
                assert torch.equal(before, step.after[name])
            elif name in step.applied:
                assert not torch.equal(before, step.after[name]), f"{name}, step {index}"
    assert trained[0] == {name for name in trained[1] if not name.startswith("net.0.")}
    assert {"net.0.weight", "net.0.bias"} < trained[1]


# ---- ScheduleFree ----


@lru_cache
def schedule_free_module(cls: type[TupleModule]) -> type[TupleModule]:
    """Return the module with a schedule-free optimizer over the same groups."""

    def convert(optimizer: Any) -> Any:
        groups = [{"params": g["params"], "lr": g["lr"]} for g in optimizer.param_groups]
        return SGDScheduleFree(groups, lr=RATE)

    def configure_optimizers(self: Any) -> Any:
        if isinstance(getattr(self, "kept", None), SGDScheduleFree):
            return self.kept
        returned = cls.configure_optimizers(self)
        if isinstance(returned, list):
            return [convert(optimizer) for optimizer in returned]
        if isinstance(returned, dict):
            optimizer = convert(returned["optimizer"])
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]
        optimizer = convert(returned)
        if hasattr(self, "kept"):
            self.kept = optimizer
        return optimizer

    name = f"ScheduleFree{cls.__name__}"
    members = {"configure_optimizers": configure_optimizers, "__module__": __name__}
    globals()[name] = type(name, (cls,), members)  # so that it can be pickled
    return globals()[name]  # type: ignore[no-any-return]


def with_schedule_free_optimizer(task: Task) -> Task:
    return dataclasses.replace(task, module=schedule_free_module(task.module))


def follows_the_recurrence(outcome: Outcome, task: Task) -> None:
    """Steps are made at y, and what is left in the end is x, of the paper's equations for SGD."""
    assert outcome.steps
    by_optimizer: dict[tuple[str, ...], list[int]] = {}
    for index, step in enumerate(outcome.steps):
        by_optimizer.setdefault(tuple(step.before), []).append(index)
    first_group = 0
    for state, (names, steps) in zip(outcome.optimizers, by_optimizer.items(), strict=True):
        for number, group in enumerate(state["param_groups"], first_group):
            rates = [outcome.rates[index][number] for index in steps]
            for position in group["params"]:
                name = names[position]
                moves = [
                    (
                        rate,
                        outcome.steps[index].applied.get(name),
                        outcome.steps[index].before[name],
                    )
                    for rate, index in zip(rates, steps, strict=True)
                ]
                one_tensor(outcome, name, group, state["state"].get(position, {}), moves)
        first_group += len(state["param_groups"])


def one_tensor(
    outcome: Outcome,
    name: str,
    group: dict[str, Any],
    state: dict[str, Any],
    moves: list[tuple[float, Tensor | None, Tensor]],
) -> None:
    x = outcome.initial[name]
    z = x
    earlier = group["k"] - len(moves)
    if earlier:  # the optimizer was kept from another fit: count back to where it started
        z = state["z"] + sum(rate * g for rate, g, _ in moves if g is not None)
    weight_sum = earlier * RATE**2
    largest = 0.0
    for rate, gradient, before in moves:
        y = (1 - group["momentum"]) * z + group["momentum"] * x
        torch.testing.assert_close(before, y, rtol=1e-4, atol=1e-5, msg=name)
        largest = max(rate, largest)
        weight_sum += largest**2
        if gradient is not None:
            z = z - rate * gradient
            x = x + largest**2 / weight_sum * (z - x)
    assert earlier or not torch.equal(x, y) or "frozen" in name
    torch.testing.assert_close(outcome.weights[name], x, rtol=1e-4, atol=1e-5, msg=name)


# ---- CentralizeGradient ----


def weights_have_no_mean(outcome: Outcome, task: Task) -> None:
    """Each row of a weight's gradient has lost its mean, and a bias's gradient is the loss's."""
    assert outcome.steps
    for step in outcome.steps:
        for name, applied in step.applied.items():
            expected = step.raw[name]
            if expected.dim() >= 2:
                flat = expected.flatten(1)
                ones = torch.ones(flat.size(1), 1)
                expected = (flat - flat @ ones @ ones.T / len(ones)).view_as(expected)
            torch.testing.assert_close(applied, expected)
    assert any(not torch.equal(s.raw[n], s.applied[n]) for s in outcome.steps for n in s.applied)


STEP_ROWS = [
    Row(
        technique=o.FullBatch,
        make=o.FullBatch,
        neutral=None,
        effect=steps_are_passes,
        useless=o.FullBatch,
        useless_task=OneBatchTask(TupleModule),
        rivals=[lambda: o.FullBatch(reduction="sum")],
        trainer_rivals=[{"accumulate_grad_batches": 2}],
        bad=[
            ("reduction", {"reduction": "max"}),
            ("input_key", {"input_key": 1.5}),
            ("input_key", {"input_key": ["x"]}),
        ],
        refuses=frozenset({"manual", "manual_scheduled"}),
        mixin=MIXIN,
        differs={"neutral_is_baseline": "one step for each pass is never one for each batch"},
        sets_accumulation=True,
    ),
    Row(
        technique=o.FreezeLayers,
        make=lambda: o.FreezeLayers("net.0", until="1ep"),
        neutral=lambda: o.FreezeLayers("net.0", until=0),
        effect=first_layer_waits,
        useless=lambda: o.FreezeLayers("net.0", after="100%"),
        useless_task=PLAIN,
        rivals=[],
        bad=[
            ("patterns", {"patterns": [], "until": 3}),
            ("patterns", {"patterns": [7], "until": 3}),
            ("until", {"patterns": "net.0", "until": None}),
            ("until", {"patterns": "net.0", "until": 5, "after": 3}),
            ("until", {"patterns": "net.0", "until": "soon"}),
            ("after", {"patterns": "net.0", "after": -2}),
            ("batch_norm", {"patterns": "net.0", "until": 3, "batch_norm": "off"}),
        ],
        mixin=MIXIN,
    ),
    Row(
        technique=o.ScheduleFree,
        make=o.ScheduleFree,
        neutral=None,
        effect=follows_the_recurrence,
        useless=o.ScheduleFree,
        useless_task=with_schedule_free_optimizer(SPECIAL["zero_rate"]),
        rivals=[CosineLR],
        bad=[("warmup", {"warmup": 0})],
        refuses=frozenset({"sharded"}),
        mixin=MIXIN,
        task=with_schedule_free_optimizer(PLAIN),
        differs={"neutral_is_baseline": "without it the optimizer refuses to step"},
        adapt=with_schedule_free_optimizer,
        trains_alone=False,
    ),
    Row(
        technique=o.CentralizeGradient,
        make=o.CentralizeGradient,
        neutral=lambda: o.CentralizeGradient(parameters=["*.bias"]),
        effect=weights_have_no_mean,
        useless=lambda: o.CentralizeGradient(conv_only=True),
        useless_task=PLAIN,
        rivals=[],
        bad=[
            ("parameters", {"parameters": "biases"}),
            ("parameters", {"parameters": []}),
            ("parameters", {"parameters": 3}),
            ("conv_only", {"conv_only": "yes"}),
        ],
        refuses=frozenset({"manual", "manual_scheduled"}),
        mixin=MIXIN,
    ),
]
