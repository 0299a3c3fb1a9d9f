"""The clauses of the contract that hold within one process.

Each takes a row and an empty folder, and raises AssertionError if the technique breaks it.
"""

import copy
import pickle
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from lightning_dlopt.core import CheckpointError, NoEffectWarning, Technique, TechniqueError
from lightning_dlopt.structure.plan import PLAN_ATTRIBUTE
from tests.contract.row import Row
from tests.contract.run import (
    Outcome,
    assert_close_weights,
    assert_equal_states,
    assert_same_training,
    build,
    train,
)
from tests.contract.tasks import BATCH, SPECIAL, TASKS, Task

States: TypeAlias = dict[str, Tensor]


class Bystander(Technique):
    """A technique that does nothing, to see what others do beside it."""


def no_effect_warnings(outcome: Outcome) -> list[str]:
    return [str(w.message) for w in outcome.told if issubclass(w.category, NoEffectWarning)]


def works_or_refuses(row: Row, task: Task, refuses: bool, **arguments: Any) -> None:
    """Train: the technique keeps its promise, or says before the first step why it can't."""
    outcome = train(task, [row.make()], keep_error=True, **arguments)
    if refuses:
        assert isinstance(outcome.error, TechniqueError), f"not refused: {outcome.error!r}"
        assert row.name in str(outcome.error), "the message must name the technique"
        assert not outcome.rates, "refused only after the first step"
        return
    if outcome.error is not None:
        raise AssertionError(f"failed with {outcome.error!r}") from outcome.error
    assert any(step.after for step in outcome.steps), "no step of an optimizer was seen"
    row.effect(outcome, task)


def cannot_work(row: Row, task: Task) -> None:
    """Train what the technique isn't made for: it refuses, or says that it does nothing."""
    outcome = train(task, [row.make()], keep_error=True)
    if outcome.error is None:
        assert any(row.name in message for message in no_effect_warnings(outcome)), "no word"
    else:
        works_or_refuses(row, task, refuses=True)


def unmodified_modules(row: Row, folder: Path) -> None:
    """1. It works on modules nobody edits, or refuses before the first step."""
    for name, task in TASKS.items():
        try:
            if row.adapt is not None:
                cannot_work(row, task)
            works_or_refuses(row, row.adapted(task), name in row.refuses)
        except AssertionError as error:
            raise AssertionError(f"task {name}: {error}") from error


def neutral_is_baseline(row: Row, folder: Path) -> None:
    """2. At its neutral setting training is bitwise the baseline's."""
    if row.neutral is None:
        assert "neutral_is_baseline" in row.differs, "it has neither a neutral setting nor a reason"
        return
    neutral, baseline = train(row.task, [row.neutral()]), train(row.task, [])
    assert_equal_states(neutral.weights, baseline.weights, "weights")


def accumulation(row: Row, folder: Path) -> None:
    """4. Two micro-batches of half the size equal one batch."""
    task = row.adapted(TASKS["momentum"])
    whole = train(task, [row.make()])
    accumulate = {} if row.sets_accumulation else {"accumulate_grad_batches": 2}
    halves = train(task, [row.make()], batch_size=BATCH // 2, **accumulate)
    row.effect(halves, task)
    row.holds_equal("accumulation", lambda: assert_close_weights(whole.weights, halves.weights))


def precision(row: Row, folder: Path) -> None:
    """6a. Mixed precision runs."""
    works_or_refuses(row, row.task, refuses=False, precision="bf16-mixed")


def compiled(row: Row, folder: Path) -> None:
    """6b. A compiled module works, or is refused."""
    module = torch.compile(build(row.task), backend="eager")
    works_or_refuses(row, row.task, "compiled" in row.refuses, module=module)


def same_generators(left: Outcome, right: Outcome) -> None:
    assert left.global_generators == right.global_generators, "a global generator was moved"


def kept_shapes(row: Row, weights: States, others: States) -> States:
    """Return the weights, of a technique that changes the structure those that keep their shape."""
    if row.shape is None:
        return weights
    return {
        name: weights[name]
        for name in weights
        if name in others and weights[name].shape == others[name].shape
    }


def own_randomness(row: Row, folder: Path) -> None:
    """7. Weights, batch order and global generators are as if the technique weren't there."""
    task = TASKS["dropout"]
    baseline = train(row.bare(task), [])
    first, second = (train(row.adapted(task), [row.make()]) for _ in range(2))
    left, right = first.initial, baseline.initial
    left, right = kept_shapes(row, left, right), kept_shapes(row, right, left)
    assert_equal_states(left, right, "initial weights")
    assert first.batches == baseline.batches, "the batches came in another order"
    row.holds_equal("own_randomness", lambda: same_generators(first, baseline))
    assert_same_training(first, second)


def no_effect_is_told(row: Row, folder: Path) -> None:
    """8. Where it changes nothing it says so, and elsewhere it doesn't."""
    useless = train(row.useless_task, [row.useless()])
    assert any(row.name in message for message in no_effect_warnings(useless)), "no warning"
    assert not no_effect_warnings(train(row.task, [row.make()])), "a false alarm"


def no_trace(row: Row, folder: Path) -> None:
    """9. After training, and after an exception in it, the module is as it was."""
    for task in (row.task, SPECIAL["crash"]):
        baseline = train(row.bare(task), [], keep_error=True)
        outcome = train(row.adapted(task), [row.make()], keep_error=True)
        assert isinstance(outcome.error, type(baseline.error)), f"another error: {outcome.error!r}"
        left = outcome.own_attributes ^ baseline.own_attributes
        if row.shape is not None:
            # the plan stays with the structure
            left -= {PLAN_ATTRIBUTE, "on_save_checkpoint", "on_load_checkpoint"}
        assert not left, f"attributes that the baseline hasn't: {left}"
        module = outcome.module
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert_equal_states(twin.state_dict(), module.state_dict(), "copy")
            inputs, _ = module.unpack(next(iter(row.adapted(task).loader(train=False))))
            # in eval mode: two calls of a network with dropout differ in any case
            assert torch.equal(twin.net.eval()(inputs), module.net.eval()(inputs))
    exported = torch.export.export(module.net.eval(), (inputs,))
    assert torch.equal(exported.module()(inputs), module.net(inputs))


def plain_checkpoints(row: Row, folder: Path) -> None:
    """10. State and arguments are plain data, and a resume that lacks the technique says so."""
    technique = row.make()
    train(row.task, [technique], checkpoints=folder)
    path = next(folder.glob("*epoch=0*"))
    try:
        state = torch.load(path, weights_only=True)["callbacks"][technique.state_key]
    except (pickle.UnpicklingError, KeyError) as error:
        raise AssertionError(f"the state is not there as plain data: {error}") from error
    assert state["arguments"] == technique.arguments()
    without = train(row.task, [Bystander()], resume=path, keep_error=True)
    if row.technique.required_on_resume:
        assert isinstance(without.error, CheckpointError), f"not refused: {without.error!r}"
        assert repr(technique) in str(without.error)
    else:
        told = [str(warning.message) for warning in without.told]
        assert any(row.name in message for message in told), "nothing says that it is missing"


def conflicts(row: Row, folder: Path) -> None:
    """11. What can't stand beside it raises and names both; the order doesn't matter."""
    assert row.rivals or row.technique.exclusive is None
    for rival in row.rivals:
        for pair in ([row.make(), rival()], [rival(), row.make()]):
            outcome = train(row.task, pair, keep_error=True)
            assert isinstance(outcome.error, TechniqueError), f"not refused: {outcome.error!r}"
            assert all(repr(technique) in str(outcome.error) for technique in pair)
            assert not outcome.rates, "refused only after the first step"
    for settings in row.trainer_rivals:
        outcome = train(row.task, [row.make()], keep_error=True, **settings)
        assert isinstance(outcome.error, TechniqueError), f"not refused: {outcome.error!r}"
        assert repr(row.make()) in str(outcome.error)
        assert all(name in str(outcome.error) for name in settings)
        assert not outcome.rates, "refused only after the first step"


def bad_arguments(row: Row, folder: Path) -> None:
    """12a. Bad arguments raise at construction, naming class, argument and value."""
    assert row.bad
    for name, arguments in row.bad:
        with pytest.raises((ValueError, TypeError)) as caught:
            row.technique(**arguments)
        message = str(caught.value)
        assert row.name in message, message
        assert name in message, message
        value = arguments[name]
        shown = value if isinstance(value, list) else [value]
        assert not value or any(str(part) in message for part in shown), message


def nothing_hidden(row: Row, folder: Path) -> None:
    """12b. A loss that isn't finite shows in the weights, as it does without the technique."""
    nan = SPECIAL["nan"]
    for task, techniques in ((nan, []), (row.adapted(nan), [row.make()])):
        weights = train(task, techniques).weights
        trained = [tensor for tensor in weights.values() if tensor.is_floating_point()]
        assert all(tensor.isnan().any() for tensor in trained), "hidden"


def mixin_equals_callback(row: Row, folder: Path) -> None:
    """The module that brings the technique ends in the weights that the callback gives."""
    if row.mixin is None:
        return
    mixin, argument = row.mixin
    brought = type("Brought", (mixin, row.task.module), {})
    module = brought(**{argument: row.make()})
    module.load_state_dict(build(row.task).state_dict())
    assert_same_training(train(row.task, [], module=module), train(row.task, [row.make()]))


def second_fit(row: Row, folder: Path) -> None:
    """14. A module that was trained with it, and kept its optimizer, can be trained again."""
    task = row.adapted(SPECIAL["kept_optimizer"])
    if "kept_optimizer" in row.refuses:
        works_or_refuses(row, task, refuses=True)
        return
    module = build(task)
    for fit in ("first", "second"):
        try:
            works_or_refuses(row, task, refuses=False, module=module)
        except AssertionError as error:
            raise AssertionError(f"{fit} fit: {error}") from error


IN_PROCESS = [
    unmodified_modules,
    neutral_is_baseline,
    accumulation,
    precision,
    compiled,
    own_randomness,
    no_effect_is_told,
    no_trace,
    plain_checkpoints,
    conflicts,
    bad_arguments,
    nothing_hidden,
    mixin_equals_callback,
    second_fit,
]
