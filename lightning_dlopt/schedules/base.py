"""What all learning-rate schedules share: warm-up, the run's length, the scheduler."""

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from lightning_dlopt.core.checks import check_flag, check_number
from lightning_dlopt.core.errors import ArgumentError, CheckpointError, ConflictError
from lightning_dlopt.core.resume import SavedTechnique
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span, known_total, parse_span
from lightning_dlopt.core.technique import Technique
from lightning_dlopt.schedules import curves
from lightning_dlopt.schedules.factor_lr import Curve, FactorLR


class Schedule(Technique, ABC):
    """Multiplies each param group's own initial rate by a factor that changes with the step.

    Stepped after every optimizer step; the length of the run comes from the Trainer. Under manual
    optimization only the module knows when it steps, so there a batch counts as a step.

    Args:
        warmup: span over which the factor rises from ``warmup_start`` to 1 before the curve takes
            over: at step k of n it is ``warmup_start + (1 - warmup_start) * (k + 1) / n``.
        warmup_start: where the warm-up begins, in [0, 1].
        replace: take over from the scheduler that the module brings, or from the schedule that
            the checkpoint was saved with. Without it, either is an error.

    Raises:
        ConflictError: beside another schedule, or, without ``replace``, a scheduler that the module
            brings.

    The checkpoint keeps the arguments and the length of the run; the scheduler's position is
    kept by Lightning with its own schedulers.
    """

    exclusive: ClassVar[str | None] = "learning-rate schedule"
    required_on_resume: ClassVar[bool] = True
    not_identity: ClassVar[frozenset[str]] = frozenset({"replace"})
    #: Whether holding the rate constant is what is asked for, not a sign of a mistake.
    may_be_constant: ClassVar[bool] = False

    def __init__(self, warmup: Span = 0, warmup_start: float = 0.0, replace: bool = False) -> None:
        self._warmup = parse_span(warmup, self, "warmup")
        self.warmup = warmup
        self.warmup_start = check_number(self, "warmup_start", warmup_start, "[0, 1]")
        self.replace = check_flag(self, "replace", replace)
        self._schedulers: list[FactorLR] = []
        self._total: int | None = None
        self._saved_total: int | None = None
        self._manual = False

    @abstractmethod
    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the factor after the warm-up, as a function of the step.

        Args:
            run: the run's length.
            begin: the first step after the warm-up. A curve without milestones starts there.
        """

    def full_curve(self, run: RunLength) -> Curve:
        """Return the factor over the whole run, warm-up included, as a function of the step.

        Raises:
            ArgumentError: if a span doesn't fit ``run``; the message begins with the schedule.
        """
        try:
            return self._resolve(run)
        except ArgumentError as error:
            named = str(error).startswith(repr(self))
            raise error if named else ArgumentError(f"{self!r}: {error}") from error

    def _resolve(self, run: RunLength) -> Curve:
        begin = self._warmup.steps(run)
        if run.total is not None and begin > run.total:
            if not run.trial:
                raise ArgumentError(
                    f"{self!r}: warmup={self.warmup!r} is {begin} steps, but the run has only "
                    f"{run.total}"
                )
            begin = run.total
        curve = self.curve(run, begin)

        def factor(step: int) -> float:
            if step < begin:
                return curves.warm_up(step, begin, self.warmup_start)
            return curve(step)

        return factor

    def simulate(self, total: int, epoch_steps: int | None = None) -> list[float]:
        """Return the factor at each step of a run, without training.

        Args:
            total: optimizer steps in the run.
            epoch_steps: optimizer steps in an epoch; needed by spans in epochs.
        """
        factor = self.full_curve(RunLength(total, epoch_steps))
        return [factor(step) for step in range(total)]

    def remaining(self, run: RunLength, begin: int) -> int:
        """Return how many steps of the run come after ``begin``."""
        return known_total(run, repr(self)) - begin

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an earlier run left in this object."""
        self._saved_total = None
        self._manual = not pl_module.automatic_optimization

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand Lightning a scheduler for every optimizer, which it will restore and step."""
        self._refuse_what_cannot_work(trainer, pl_module)
        taken_over = bool(trainer.strategy.lr_scheduler_configs)
        self._schedulers = [
            FactorLR(optimizer, taken_over=taken_over, manual=self._manual)
            for optimizer in trainer.optimizers
        ]
        trainer.strategy.lr_scheduler_configs = [
            LRSchedulerConfig(scheduler, interval="step") for scheduler in self._schedulers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resolve the curve now that the length of the run is known, and set the first rates."""
        run = RunLength.of(trainer, automatic=not self._manual)
        curve = self.full_curve(run)
        self._total = run.total
        self._warn_if_nothing_changes(run, curve)
        # not the scheduler's own position: the checkpoint may have had another schedule, or none
        step = trainer.fit_loop.total_batch_idx + 1 if self._manual else trainer.global_step
        for scheduler in self._schedulers:
            scheduler.follow(curve, step)
        if self._saved_total not in (None, self._total) and trainer.is_global_zero:
            self._tell_if_the_curve_moved(run, curve, step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Step the schedule where Lightning doesn't: under manual optimization."""
        if self._manual:
            for scheduler in self._schedulers:
                scheduler.advance()

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the schedulers, so that a module that brings this schedule can be pickled."""
        for scheduler in self._schedulers:
            scheduler.leave()
        self._schedulers = []

    def __getstate__(self) -> dict[str, Any]:
        # nor must it carry the original's optimizers along
        return {**super().__getstate__(), "_schedulers": []}

    def extra_state(self) -> dict[str, Any]:
        """Keep the run's length, to tell when a resumed run is longer."""
        return {"total_steps": self._total}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Note how long the run was; Lightning restores the schedulers' position."""
        self._saved_total = state_dict["total_steps"]

    def check_resume(self, saved: list[SavedTechnique]) -> None:
        """Refuse a checkpoint with another schedule or none, unless told to replace it."""
        schedules = [other.name for other in saved if other.exclusive == self.exclusive]
        if self.state_key in schedules or self.replace:
            return
        had = schedules[0] if schedules else "no schedule of this package"
        raise CheckpointError(
            f"the checkpoint was saved with {had}, but this run has {self!r}: resume with what it "
            "was saved with, or pass replace=True to change the schedule from here on"
        )

    def _refuse_what_cannot_work(self, trainer: Trainer, pl_module: LightningModule) -> None:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        if not groups:
            raise self.refuse(
                f"{type(pl_module).__name__} has no optimizer whose rate could change"
            )
        if any("lr" not in group for group in groups):
            raise self.refuse("an optimizer of this module has no learning rate ('lr')")
        own = [type(config.scheduler) for config in trainer.strategy.lr_scheduler_configs]
        if not own:
            return
        brought = f"{type(pl_module).__name__} brings {own[0].__name__}"
        if not self.replace:
            raise ConflictError(
                f"{self!r} and the scheduler of the module would both set the rate: {brought}; "
                "remove one of them, or pass replace=True to train with this one"
            )
        if self._manual:
            raise self.refuse(
                f"{brought} and steps it by itself (manual optimization), so it can't be replaced: "
                "remove it from configure_optimizers"
            )
        if any(issubclass(kind, OneCycleLR | CyclicLR) for kind in own):
            raise self.refuse(
                f"{brought}, which has overwritten the optimizer's initial rate: remove it from "
                "configure_optimizers"
            )

    def _tell_if_the_curve_moved(self, run: RunLength, curve: Curve, step: int) -> None:
        saved = dataclasses.replace(run, total=self._saved_total, trial=True)
        before = self._resolve(saved)
        end = max(self._saved_total or step, run.total or step)
        if any(before(k) != curve(k) for k in range(step, end)):
            warnings.warn(
                f"{self!r}: the run had {self._saved_total} steps when the checkpoint was saved, "
                f"and has {self._total} now; what is measured by the run's length moves with it",
                stacklevel=2,
            )

    def _warn_if_nothing_changes(self, run: RunLength, curve: Curve) -> None:
        if all(rate == 0 for scheduler in self._schedulers for rate in scheduler.base_lrs):
            self.warn_no_effect("every initial rate is 0")
        elif run.total and not run.trial and not self.may_be_constant:
            # a few steps tell most curves from a constant; the others are looked at throughout
            few = range(0, run.total, max(1, run.total // 4096))
            if all(curve(step) == 1 for steps in (few, range(run.total)) for step in steps):
                self.warn_no_effect(f"the rate stays the same over all {run.total} steps")
