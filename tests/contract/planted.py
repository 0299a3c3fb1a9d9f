"""A good toy technique, and bad ones that each break the contract in one way."""

import enum
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_dlopt.core import Technique
from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.mixin import TechniqueMixin
from tests.contract.row import Row
from tests.contract.run import Outcome
from tests.contract.tasks import PLAIN, DictModule, Task


class Toy(Technique):
    """Adds ``strength * w`` to every gradient, and keeps every clause."""

    exclusive: ClassVar[str | None] = "toy"

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = check_number(self, "strength", strength, "[0, inf)")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.strength == 0:
            self.warn_no_effect("strength is 0")

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for parameter in with_gradients(optimizer):
            parameter.grad.add_(parameter.detach(), alpha=self.strength)


class ToyMixin(TechniqueMixin):
    def __init__(self, *args: Any, toy: Toy, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_techniques(toy)


def with_gradients(optimizer: Any) -> Iterator[Any]:
    for group in optimizer.param_groups:
        yield from (p for p in group["params"] if p.grad is not None)


class DoesNothing(Toy):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        pass


class IgnoresDicts(Toy):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if not isinstance(pl_module, DictModule):
            super().on_before_optimizer_step(trainer, pl_module, optimizer)


class IsNeverNeutral(Toy):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for parameter in with_gradients(optimizer):
            parameter.grad.add_(parameter.detach(), alpha=self.strength + 1e-3)


class ForgetsItsState(Toy):
    """Gets stronger with every step, and doesn't save how strong it is."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        self.strength *= 1.1


class DoublesUnderAccumulation(Toy):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        pass

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_before_optimizer_step(trainer, pl_module, trainer.optimizers[0])


class DiffersByRank(Toy):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for parameter in with_gradients(optimizer):
            parameter.grad.add_(parameter.detach(), alpha=self.strength * (1 + trainer.global_rank))


class IgnoresMixedPrecision(Toy):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.precision == "32-true":
            super().on_before_optimizer_step(trainer, pl_module, optimizer)


class IgnoresCompiledModules(Toy):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if getattr(pl_module, "_compiler_ctx", None) is None:
            super().on_before_optimizer_step(trainer, pl_module, optimizer)


class DrawsFromTheGlobalGenerator(Toy):
    def on_train_batch_start(self, *args: Any) -> None:
        torch.rand(())


class KeepsQuiet(Toy):
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pass


class CriesWolf(Toy):
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.warn_no_effect("it says so every time")


class LeavesAPatch(Toy):
    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        original = pl_module.training_step
        pl_module.training_step = lambda *args: original(*args)  # type: ignore[method-assign]


class LeavesAPatchAfterAnException(Toy):
    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.patch(pl_module, "training_step", lambda original: lambda *args: original(*args))

    def on_exception(self, *args: Any) -> None:
        pass


class Kind(enum.Enum):
    ANY = 1


class SavesAnObject(Toy):
    def extra_state(self) -> dict[str, Any]:
        return {"kind": Kind.ANY}


class IsNotMissed(Toy):
    """Shapes the model, so it says, but its entry in the checkpoint doesn't."""

    required_on_resume: ClassVar[bool] = True

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "required": False}


class SharesItsPlace(Toy):
    exclusive: ClassVar[str | None] = None


class RefusesTooLate(Toy):
    """Steps once before it looks at what else there is."""

    exclusive: ClassVar[str | None] = None

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        others = [c for c in trainer.callbacks if isinstance(c, Toy) and c is not self]  # type: ignore[attr-defined]
        if others:
            raise self.refuse(f"there is {others[0]!r}")


class AcceptsNonsense(Toy):
    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength


class HidesNan(Toy):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        for parameter in with_gradients(optimizer):
            parameter.grad.nan_to_num_(nan=0.0)


class WorksOnlyOnce(Toy):
    """Believes that a module it has seen needs nothing more."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self.seen = hasattr(type(pl_module), "seen")
        type(pl_module).seen = True  # type: ignore[attr-defined]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        if self.seen:
            del type(pl_module).seen  # type: ignore[attr-defined]

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if not self.seen:
            super().on_before_optimizer_step(trainer, pl_module, optimizer)


class WorksBesideClipping(Toy):
    """Ought to refuse the Trainer's clipping."""


class ForgetfulMixin(TechniqueMixin):
    def __init__(self, *args: Any, toy: Toy, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class MixedInBadly(Toy):
    pass


def gradients_moved(outcome: Outcome, task: Task) -> None:
    """Every gradient that is applied is the loss's plus the parameter."""
    assert any(step.applied for step in outcome.steps), "no step was made"
    for step in outcome.steps:
        for name, applied in step.applied.items():
            torch.testing.assert_close(applied, step.raw[name] + step.before[name])


def toy_row(cls: type[Toy], **changes: Any) -> Row:
    settings: dict[str, Any] = {
        "technique": cls,
        "make": lambda: cls(1.0),
        "neutral": lambda: cls(0.0),
        "effect": gradients_moved,
        "useless": lambda: cls(0.0),
        "useless_task": PLAIN,
        "rivals": [lambda: cls(0.5)],
        "bad": [("strength", {"strength": value}) for value in (-1, float("nan"), "much", True)],
        "mixin": (ToyMixin, "toy"),
        **changes,
    }
    return Row(**settings)


GOOD = toy_row(Toy)

#: Each bad technique with the clauses that must catch it.
FAULTS: dict[type[Toy], set[str]] = {
    DoesNothing: {"unmodified_modules"},
    IgnoresDicts: {"unmodified_modules"},
    IsNeverNeutral: {"neutral_is_baseline", "useless_is_baseline"},
    ForgetsItsState: {"resume_after_epoch", "resume_after_kill"},
    DoublesUnderAccumulation: {"accumulation", "half_precision"},
    DiffersByRank: {"two_processes", "sharded"},
    IgnoresMixedPrecision: {"precision"},
    IgnoresCompiledModules: {"compiled"},
    DrawsFromTheGlobalGenerator: {"own_randomness"},
    KeepsQuiet: {"no_effect_is_told"},
    CriesWolf: {"no_effect_is_told"},
    LeavesAPatch: {"no_trace"},
    LeavesAPatchAfterAnException: {"no_trace"},
    SavesAnObject: {"plain_checkpoints"},
    IsNotMissed: {"plain_checkpoints"},
    SharesItsPlace: {"conflicts"},
    RefusesTooLate: {"conflicts"},
    AcceptsNonsense: {"bad_arguments"},
    HidesNan: {"nothing_hidden"},
    MixedInBadly: {"mixin_equals_callback"},
    WorksOnlyOnce: {"second_fit"},
    WorksBesideClipping: {"conflicts"},
}

PLANTED = {
    "Toy": GOOD,
    **{cls.__name__: toy_row(cls) for cls in FAULTS},
    "MixedInBadly": toy_row(MixedInBadly, mixin=(ForgetfulMixin, "toy")),
    "WorksBesideClipping": toy_row(
        WorksBesideClipping, trainer_rivals=[{"gradient_clip_val": 1.0}]
    ),
}
