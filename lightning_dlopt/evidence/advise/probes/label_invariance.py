"""Which transforms of the inputs leave their labels as they are?"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from lightning_dlopt.core.errors import UserError, one_line
from lightning_dlopt.evidence.advise.catch_predictions import Predictions
from lightning_dlopt.evidence.advise.class_names import class_names
from lightning_dlopt.evidence.advise.config_changes import change_arguments
from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError, Question
from lightning_dlopt.evidence.advise.label_survival import Survival, judge_labels
from lightning_dlopt.evidence.advise.loaders import tensor_in
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.subject import Subject
from lightning_dlopt.evidence.advise.trained_copy import run_training_step, trained_copy
from lightning_dlopt.evidence.advise.trial_transforms import (
    Transform,
    pad_id_of,
    transforms_for,
    used_techniques,
)

#: Samples that are transformed, at most and at least, and how many times longer than to predict
#: them it may take to transform them, too.
_SAMPLES, _FEWEST, _RESERVE = 1024, 128, 1.5
#: How much of the way from guessing to all right the model must be, how much of it to show that
#: labels survive (coarse features survive much), and how much of its own way must be left on
#: transformed samples.
_LEARNED, _SURE, _KEPT = 0.25, 0.6, 0.6


class LabelInvariance(Probe):
    """Asks a briefly trained copy about training samples that are flipped, turned, shifted, ….

    A copy that hasn't seen a transform and still gives the same labels shows that they survive
    it. One that is lost shows nothing. One that takes classes for each other, as left and right
    arrows when they are flipped, shows that the transform changes labels: to train with it would
    teach that both are the same.
    """

    name: ClassVar[str] = "labels under transforms"
    questions: ClassVar[tuple[Question, ...]] = ("augmentation",)
    share: ClassVar[float] = 1.5

    def run(self, subject: Subject) -> list[Finding]:
        """Return a finding for each transform that changes labels, and one on the others."""
        first = subject.batches(1)
        if not first:
            raise NotDoneError("there are no training batches")
        inputs = tensor_in(first[0], "input")
        transforms = transforms_for(inputs, pad_id_of(subject))
        training = trained_copy(subject, 0.5)
        begin = subject.clock()
        run_training_step(training.module, first)
        each = max(subject.clock() - begin, 1e-9) * _RESERVE * (1 + len(transforms))
        most, fewest = (-(-count // max(len(inputs), 1)) for count in (_SAMPLES, _FEWEST))
        batches = subject.batches(max(int(min(most, subject.seconds_left() / each)), fewest))
        plain = gather(run_training_step(training.module, batches).predictions)
        guessing = torch.bincount(plain.targets.clamp(min=0)).max() / len(plain.targets)
        right = float((plain.predicted == plain.targets).double().mean())
        if right < guessing + _LEARNED * (1 - guessing):
            raise NotDoneError(
                f"after {training.steps} steps the model is right on {right:.0%} of training "
                f"samples, and guessing is on {float(guessing):.0%}: too little to judge by"
            )
        found: dict[Transform, Survival] = {}
        for one in transforms:
            if not subject.check_time(f"{one.title}, and what comes after it"):
                break
            generator = torch.Generator().manual_seed(subject.seed)
            try:
                changed = [one.trial.change(batch, generator) for batch in batches]
            except UserError as error:
                raise NotDoneError(one_line(error)) from error
            moved = gather(run_training_step(training.module, changed).predictions)
            found[one] = judge_labels(
                plain.predicted, moved.predicted, plain.targets, plain.num_classes
            )
        if not found:
            raise NotDoneError("there was no time for a transform")
        is_sure = right >= guessing + _SURE * (1 - guessing)
        return self._findings(subject, found, plain.num_classes, training.steps, bool(is_sure))

    def _findings(
        self,
        subject: Subject,
        found: dict[Transform, Survival],
        num_classes: int,
        steps: int,
        is_sure: bool,
    ) -> list[Finding]:
        used, names = used_techniques(subject), class_names(subject, num_classes)
        findings = [
            self._changing(subject, one, survival, names, one.is_used_by(used))
            for one, survival in found.items()
            if survival.cycles
        ]
        plain = next(iter(found.values())).plain
        shown = ", ".join(f"{one.title} {survival.changed:.0%}" for one, survival in found.items())
        data = {
            "steps": steps,
            "plain": plain,
            "transformed": {
                one.title: {"accuracy": survival.changed, "kept": survival.kept}
                for one, survival in found.items()
            },
        }
        figure = f"right on {plain:.0%} of training samples after {steps} steps; after {shown}"
        kept = [one for one, survival in found.items() if is_sure and _keeps_labels(survival)]
        unused = [one for one in kept if not one.is_used_by(used)]
        if not kept or not unused or any(isinstance(kept[0].trial, type(one)) for one in used):
            reason = (
                "A model that hasn't seen the transforms is lost: that labels survive isn't shown."
                if not kept and is_sure
                else "The model has learned too little in this time to show that labels survive."
                if not kept
                else "What labels survive is in use already, or could be added to it."
            )
            return [*findings, Finding(self.name, "augmentation", figure, reason, data)]
        titles = ", ".join(one.title for one in unused)
        return [
            *findings,
            Finding(
                self.name,
                "augmentation",
                figure,
                f"Labels survive {titles}: a model that never saw them mostly gives the same.",
                data,
                0.1,
                f"train with {titles}",
                overlay_of(unused),
                "augmentation",
            ),
        ]

    def _changing(
        self, subject: Subject, one: Transform, found: Survival, names: list[str], is_used: bool
    ) -> Finding:
        cycles = [[names[index] for index in cycle] for cycle in found.cycles]
        swapped = "; ".join(" and ".join(cycle) for cycle in cycles)
        return Finding(
            self.name,
            "augmentation",
            f"{one.title}: right on {found.plain:.0%} of training samples, {found.changed:.0%} "
            f"after it; taken for each other: {swapped}",
            "It makes samples of one class look like samples of another, so training with it "
            "teaches that both are the same"
            + (", and the run does." if is_used else ": it is none to train with."),
            {
                "transform": one.argument,
                "technique": one.technique,
                "plain": found.plain,
                "transformed": found.changed,
                "taken_for_each_other": cycles,
                "used": is_used,
            },
            0.9 if is_used else 0.0,
            f"train without {one.title} ({one.argument} of {one.technique})" if is_used else None,
            change_arguments(subject.config, one.technique, {one.argument: one.neutral})
            if is_used
            else None,
            "without_" + one.title.replace(" ", "_"),
        )


def gather(predictions: Sequence[Predictions | None]) -> Predictions:
    """Return the predictions of all batches together.

    Raises:
        NotDoneError: if there is a batch without.
    """
    found = [one for one in predictions if one is not None]
    if len(found) < len(predictions) or not found:
        raise NotDoneError(
            "the training step computes no cross-entropy of one class for each sample, or several "
            "of them: what the model predicts can't be told"
        )
    return Predictions(
        torch.cat([one.predicted for one in found]),
        torch.cat([one.targets for one in found]),
        max(one.num_classes for one in found),
    )


def overlay_of(transforms: Sequence[Transform]) -> dict[str, Any]:
    """Return the overlay that adds all transforms, those of one technique as one callback."""
    arguments: dict[str, dict[str, Any]] = {}
    for one in transforms:
        arguments.setdefault(one.technique, {}).update(one.usual)
    callbacks = [
        {"class_path": name, "init_args": init_args} for name, init_args in arguments.items()
    ]
    return {"trainer": {"callbacks+": callbacks}}


def _keeps_labels(survival: Survival) -> bool:
    return not survival.cycles and survival.kept >= _KEPT
