"""Clauses of the contract about what a run must not change, nor carry on, unseen.

As in :mod:`tests.contract.clauses`, each takes a row and an empty folder.
"""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from tests.contract.clauses import no_effect_warnings, works_or_refuses
from tests.contract.row import Row
from tests.contract.run import Outcome, assert_equal_states, assert_same_training, train
from tests.contract.tasks import SPECIAL, TASKS


def effect_can_fail(row: Row, folder: Path) -> None:
    """0. The row's effect tells a run with the technique from one without it.

    It may not where the technique itself says that it has none.
    """
    for task in [row.task, *(TASKS[name] for name in TASKS.keys() - row.refuses)]:
        try:
            row.effect(train(row.bare(task), []), row.bare(task))
        except Exception:
            continue
        adapted = row.adapted(task)
        told = no_effect_warnings(train(adapted, [row.make()])) if task is not row.task else []
        assert told, f"{task}: without the technique its effect is there"


def half_precision(row: Row, folder: Path) -> None:
    """6c. Gradients that are scaled, as 16-bit training does it, make no difference."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plugins = [MixedPrecision("16-mixed", "cpu", scaler)]
    works_or_refuses(row, row.task, "half_precision" in row.refuses, plugins=plugins)


def useless_is_baseline(row: Row, folder: Path) -> None:
    """8b. Where it says that it changes nothing, it changes nothing."""
    useless = train(row.useless_task, [row.useless()])
    baseline = train(row.useless_task, [], keep_error=True)
    if baseline.error is not None:
        return  # a task that can't be trained without it
    assert_equal_states(useless.weights, baseline.weights, "weights")
    assert useless.batches == baseline.batches, "the batches came in another order"
    assert useless.global_generators == baseline.global_generators, "a generator was moved"


def traces(module: nn.Module) -> dict[str, Any]:
    """Return what may have been left in a module's parts: attributes, hooks, settings."""
    found: dict[str, Any] = {}
    for name, part in module.named_modules():
        if isinstance(part, LightningModule):
            continue  # Lightning leaves things of its own there; clause 9 looks at them
        for key, value in vars(part).items():
            if "hooks" in key and isinstance(value, dict):
                value = len(value)
            plain = isinstance(value, bool | int | float | str)
            found[f"{name}.{key}"] = value if plain else type(value).__name__
    for name, parameter in module.named_parameters():
        hooks = [parameter._backward_hooks, parameter._post_accumulate_grad_hooks]  # type: ignore[attr-defined]
        found[name] = (parameter.requires_grad, [len(hook or ()) for hook in hooks])
    return found


def optimizer_hooks(outcome: Outcome) -> list[int]:
    kept = getattr(outcome.module, "kept", None)
    return [len(hooks) for name, hooks in vars(kept).items() if "hooks" in name] if kept else []


def parts_untouched(row: Row, folder: Path) -> None:
    """9b. No hook, attribute or setting is left in the module's parts, or a kept optimizer."""
    for task in (row.task, SPECIAL["crash"], SPECIAL["kept_optimizer"]):
        if task is SPECIAL["kept_optimizer"] and "kept_optimizer" in row.refuses:
            continue
        baseline = train(row.bare(task), [], keep_error=True)
        outcome = train(row.adapted(task), [row.make()], keep_error=True)
        left, right = traces(outcome.module), traces(row.shaped(baseline.module))
        differ = {name for name in left.keys() | right.keys() if left.get(name) != right.get(name)}
        assert not differ, f"left behind: {sorted(differ)}"
        assert optimizer_hooks(outcome) == optimizer_hooks(baseline), "hooks of the optimizer"


class Validations(Callback):
    """Notes each validation's weights and result."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []
        self.losses: list[float] = []

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        # not earlier: a technique may put other weights in place for the whole validation
        if batch_idx == 0 and not trainer.sanity_checking:
            state = pl_module.state_dict()
            self.states.append({name: value.clone() for name, value in state.items()})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.losses.append(float(trainer.callback_metrics["val_loss"]))


@torch.no_grad()
def validate(row: Row, state: dict[str, Tensor]) -> float:
    """Return the validation loss of a module that no technique has seen."""
    module = row.shaped(row.task.module()).eval()
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise AssertionError(str(error)) from error
    losses = [float(module.loss(batch)) for batch in row.task.loader(train=False)]
    return sum(losses) / len(losses)


def validation_is_plain(row: Row, folder: Path) -> None:
    """15. Validation measures what the module with those weights does by itself."""
    seen = Validations()
    with torch.random.fork_rng():
        train(row.task, [row.make()], callbacks=[seen])
        assert len(seen.states) == len(seen.losses) > 1

        def check() -> None:
            for state, loss in zip(seen.states, seen.losses, strict=True):
                expected = validate(row, state)
                assert abs(loss - expected) <= 1e-5 * max(1, abs(expected)), (loss, expected)

        row.holds_equal("validation_is_plain", check)


def reused(row: Row, folder: Path) -> None:
    """16. The same object serves another run as a new one would, also after an exception."""
    fresh = train(row.task, [row.make()])
    for before in (row.task, SPECIAL["crash"]):
        technique = row.make()
        train(row.adapted(before), [technique], keep_error=True)
        again = train(row.task, [technique])
        assert_same_training(again, fresh)


def batches_stay(row: Row, folder: Path) -> None:
    """17. What the training step gets instead of a batch, the batch itself stays as it is."""
    outcome = train(row.task, [row.make()])
    assert outcome.ended_batches == outcome.batches, "a batch was changed in place"


STRICT = [
    batches_stay,
    effect_can_fail,
    half_precision,
    useless_is_baseline,
    parts_untouched,
    validation_is_plain,
    reused,
]
