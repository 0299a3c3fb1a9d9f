"""A briefly trained copy that several probes share, and what its training step says of batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from lightning_dlopt.core.batch_copy import copied
from lightning_dlopt.core.extra_pass import extra_pass
from lightning_dlopt.core.step_output import loss_of
from lightning_dlopt.evidence.advise.catch_predictions import CatchPredictions, Predictions
from lightning_dlopt.evidence.advise.copying import copied_module
from lightning_dlopt.evidence.advise.finding import NotDoneError
from lightning_dlopt.evidence.advise.subject import Subject

#: Optimizer steps of the shared short run, if there is time for them.
STEPS = 300


@dataclass(frozen=True)
class ShortRun:
    """A copy that was trained for a while.

    Attributes:
        module: the copy.
        steps: optimizer steps made.
        seconds: that the last of them took which were made together.
        epoch: batches in an epoch; infinite if the loader doesn't know.
    """

    module: LightningModule
    steps: int
    seconds: float
    epoch: float


_RUNS: WeakKeyDictionary[Subject, ShortRun] = WeakKeyDictionary()


class _CountBatches(Callback):
    """Notes how many batches an epoch has."""

    count = math.inf

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.count = float(trainer.num_training_batches)


def check_automatic(module: LightningModule) -> None:
    """Raise a NotDoneError if a module optimizes by itself in its training step."""
    if not module.automatic_optimization:
        raise NotDoneError(
            f"{type(module).__name__} optimizes manually: its training step can't be run alone"
        )


def trained_copy(subject: Subject, share: float = 0.5) -> ShortRun:
    """Return a copy of the module that was trained for up to 300 steps, without augmentation.

    The techniques of this package that augment or regularize are left out, wherever they come
    from, so that the copy has seen the data as it is. The probes of one subject share the run: the
    first begins it, those after it go on with it where its time was over, each with a copy of its
    own.

    Args:
        subject: of the probe at work.
        share: which part of the time that the probe has left may be spent, in (0, 1].
    """
    check_automatic(subject.module)
    run = _RUNS.get(subject)
    steps = 0 if run is None else run.steps
    if run is None or (steps < STEPS and subject.seconds_left() > run.seconds / 4):
        cut_off, counted = subject.cut_off, _CountBatches()
        training = subject.train(
            [counted],
            max_steps=STEPS - steps,
            max_seconds=subject.seconds_left() * share,
            module=None if run is None else run.module,
            plain=True,
        )
        subject.cut_off = cut_off  # fewer steps are told with the figure
        steps += training.steps
        run = ShortRun(training.module, steps, training.seconds, counted.count)
        _RUNS[subject] = run
    if not run.steps:
        raise NotDoneError("there was no time for a step of training")
    return replace(run, module=_with_trainer(run.module))


def _with_trainer(module: LightningModule) -> LightningModule:
    """Return a copy of a module that has been trained, attached to the same Trainer."""
    trainer = module.trainer
    module.trainer = None
    try:
        twin = copied_module(module)
    finally:
        module.trainer = trainer
    twin.trainer = trainer
    return twin


@dataclass
class StepResults:
    """What a module's training step said of some batches.

    Attributes:
        losses: of each batch.
        predictions: of each batch, or None where it computed no cross-entropy of one class a
            sample, or several.
    """

    losses: list[float] = field(default_factory=list)
    predictions: list[Predictions | None] = field(default_factory=list)


def run_training_step(
    module: LightningModule, batches: Sequence[Any], training: bool = False
) -> StepResults:
    """Return the losses and predictions of a module's training step, and leave it as it was.

    Nothing is logged, no gradient computed, no weight changed.

    Args:
        module: a copy that has been trained, of :func:`trained_copy` or a short run.
        batches: as the step gets them.
        training: whether the module is in training mode: with dropout, and normalization by the
            batch.

    Raises:
        NotDoneError: as :func:`check_automatic`.
    """
    check_automatic(module)
    results = StepResults()
    modes = {part: part.training for part in module.modules()}
    module.train(training)
    try:
        for index, batch in enumerate(batches):
            with extra_pass(module), torch.no_grad(), CatchPredictions() as catch:
                output = _call(module, copied(batch, tensors=True), index)
            loss = loss_of(output)
            results.losses.append(float(loss) if isinstance(loss, Tensor) else float("nan"))
            results.predictions.append(catch.found[0] if len(catch.found) == 1 else None)
    finally:
        for part, mode in modes.items():
            part.training = mode
    return results


def _call(module: LightningModule, batch: Any, index: int) -> Any:
    step: Any = module.training_step
    if is_param_in_hook_signature(step, "dataloader_iter", explicit=True):
        raise NotDoneError("its training step takes its batches from dataloader_iter")
    if is_param_in_hook_signature(step, "batch_idx", min_args=2):
        return step(batch, index)
    return step(batch)
