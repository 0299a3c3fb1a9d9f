"""How long a run is, in optimizer steps, and where its epochs end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from lightning_dlopt.core.errors import ArgumentError


def round_half_up(steps: float) -> int:
    """Round to the nearest whole number of steps; float rounding doesn't decide about a half.

    Example:
        >>> round_half_up(57.49999999999999), round_half_up(57.4)
        (58, 57)
    """
    return math.floor(round(steps, 9) + 0.5)


@dataclass(frozen=True)
class RunLength:
    """The length of a run, resolved before its first step.

    Attributes:
        total: optimizer steps in the whole run; None when nothing bounds it.
        epoch_batches: batches in an epoch; None when the loader has no length.
        accumulation: from which epoch on (0-based) how many batches make one step.
        trial: True for ``fast_dev_run``, where spans longer than the run are no mistake.

    Example:
        >>> run = RunLength(total=30, epoch_batches=10)
        >>> run.step_at(1.5), run.epoch_at(25)
        (15, 2.5)
    """

    total: int | None
    epoch_batches: int | None = None
    accumulation: Mapping[int, int] = field(default_factory=lambda: {0: 1})
    trial: bool = False

    @classmethod
    def of(cls, trainer: Trainer, *, automatic: bool = True) -> "RunLength":
        """Return the length of the run that ``trainer`` is about to make, from on_train_start on.

        Not before: setting up the loaders earlier, as ``estimated_stepping_batches`` does, keeps
        Lightning from restoring their position when it resumes in the middle of an epoch.

        Lightning's ``estimated_stepping_batches`` doesn't know of
        ``GradientAccumulationScheduler``, so the steps are counted here. Under manual
        optimization (``automatic=False``) only the module knows when it steps; a batch then
        counts as one step, and ``max_steps``, which counts every optimizer's steps, bounds
        nothing that could be known beforehand.
        """
        batches = trainer.num_training_batches
        epoch_batches = None if math.isinf(batches) else int(batches)
        accumulation = {0: trainer.accumulate_grad_batches} if automatic else {0: 1}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if automatic and isinstance(callback, GradientAccumulationScheduler):
                accumulation = {0: 1, **callback.scheduling}
        run = cls(None, epoch_batches, accumulation, bool(trainer.fast_dev_run))  # type: ignore[attr-defined]
        bounds = []
        if trainer.max_steps != -1 and automatic:
            bounds.append(trainer.max_steps)
        if trainer.max_epochs not in (None, -1) and epoch_batches is not None:
            bounds.append(run.step_at(trainer.max_epochs))
        return cls(min(bounds, default=None), epoch_batches, accumulation, run.trial)

    def _phases(self) -> list[tuple[int, float, int]]:
        """Return (first epoch, the epoch after the last, steps of each epoch), in order."""
        if self.epoch_batches is None:
            raise ArgumentError(
                "the training data have no length, so epochs can't be counted in steps: "
                "give the span in steps"
            )
        starts = sorted(self.accumulation)
        # the last, partial window of an epoch steps too
        return [
            (start, end, math.ceil(self.epoch_batches / self.accumulation[start]))
            for start, end in zip(starts, [*starts[1:], math.inf], strict=True)
        ]

    def step_at(self, epochs: float) -> int:
        """Return how many optimizer steps the first ``epochs`` epochs take, rounded."""
        return round_half_up(
            sum(
                max(0.0, min(epochs, end) - start) * per_epoch
                for start, end, per_epoch in self._phases()
            )
        )

    def epoch_at(self, step: float) -> float:
        """Return how many epochs the first ``step`` optimizer steps take."""
        for start, end, per_epoch in self._phases():
            length = (end - start) * per_epoch
            if step <= length:
                break
            step -= length
        return start + step / per_epoch
