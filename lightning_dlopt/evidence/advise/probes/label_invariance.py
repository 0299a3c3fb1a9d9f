"""Which transforms of the inputs leave their labels as they are?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_dlopt.augmentation import DeleteTokens, RandomGeometry, SwapTokens
from lightning_dlopt.core.batch import get_tensor
from lightning_dlopt.core.batch_technique import BatchTechnique
from lightning_dlopt.core.errors import TechniqueError, one_line
from lightning_dlopt.core.sample_count import count_samples
from lightning_dlopt.core.technique import Technique
from lightning_dlopt.evidence.advise.catch_predictions import Predictions
from lightning_dlopt.evidence.advise.class_names import class_names
from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError, Question
from lightning_dlopt.evidence.advise.label_survival import Survival, judge_labels
from lightning_dlopt.evidence.advise.overlays import add_callback, change_arguments
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.short_run import run_training_step, trained_copy
from lightning_dlopt.evidence.advise.subject import Subject

#: Samples that are transformed, if there is time for them.
_SAMPLES = 1024
#: How much of the way from guessing to all right the model must be, and how much of that must be
#: left on transformed samples for the labels to count as kept.
_LEARNED, _KEPT = 0.25, 0.6


@dataclass(frozen=True)
class Transform:
    """A transform that is tried.

    Attributes:
        argument: of the technique, by which training would use it.
        trial: does it to every sample.
        value: of the argument, as it would be suggested.
    """

    argument: str
    trial: BatchTechnique
    value: Any


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
        """Return a finding on transforms that change labels, if any, and one on those that don't."""
        if not subject.module.automatic_optimization:
            raise NotDoneError("under manual optimization the training step can't be run alone")
        first = subject.batches(1)
        if not first:
            raise NotDoneError("there are no training batches")
        try:
            inputs = get_tensor(first[0], "input", owner=self.name)
            count = max(_SAMPLES // max(count_samples(first[0]), 1), 1)
        except (TechniqueError, ValueError) as error:
            raise NotDoneError(one_line(error)) from error
        transforms = transforms_for(inputs, _pad_id(subject))
        training = trained_copy(subject, 0.6)
        batches = subject.batches(count)
        plain = _predictions(run_training_step(training.module, batches).predictions)
        targets = plain.targets
        basis = judge_labels(plain.predicted, plain.predicted, targets, plain.num_classes)
        guessing = float(torch.bincount(targets[targets >= 0]).max()) / max(len(targets), 1)
        if basis.plain < guessing + _LEARNED * (1 - guessing):
            raise NotDoneError(
                f"after {training.steps} steps the model is right on {basis.plain:.0%} of training "
                f"samples, and guessing is on {guessing:.0%}: too little to judge by"
            )
        found: dict[str, Survival] = {}
        for one in transforms:
            if not subject.check_time(f"the transform {one.argument} and those after it"):
                break
            generator = torch.Generator().manual_seed(subject.seed)
            try:
                changed = [one.trial.change(batch, generator) for batch in batches]
            except (TechniqueError, ValueError, TypeError):
                continue  # such as a crop larger than the image
            moved = _predictions(run_training_step(training.module, changed).predictions)
            found[one.argument] = judge_labels(
                plain.predicted, moved.predicted, targets, plain.num_classes
            )
        if not found:
            raise NotDoneError("there was no time for a transform")
        names = class_names(subject, plain.num_classes)
        tried = [one for one in transforms if one.argument in found]
        return self._findings(subject, tried, found, names, training.steps)

    def _findings(
        self,
        subject: Subject,
        tried: Sequence[Transform],
        found: dict[str, Survival],
        names: list[str],
        steps: int,
    ) -> list[Finding]:
        kind = type(tried[0].trial)
        used = _used(subject)
        changing = [one for one in tried if found[one.argument].cycles]
        findings = []
        for one in changing:
            survival = found[one.argument]
            swapped = "; ".join(
                " and ".join(names[index] for index in cycle) for cycle in survival.cycles
            )
            is_used = any(getattr(other, one.argument, None) for other in used)
            findings.append(
                Finding(
                    self.name,
                    "augmentation",
                    f"{one.argument}: accuracy on training samples falls from "
                    f"{survival.plain:.0%} to {survival.changed:.0%}, and the model takes for "
                    f"each other: {swapped}",
                    "The transform turns samples of one class into samples of another, whose "
                    "label they don't get: " + ("don't train with it." if not is_used else "")
                    + ("training with it teaches that the classes are the same." * is_used),
                    {"transform": one.argument, "steps": steps, **_data(survival, names)},
                    0.9 if is_used else 0.0,
                    f"train without {one.argument}" if is_used else None,
                    change_arguments(subject.config, type(one.trial).__name__, _off(one))
                    if is_used
                    else None,
                    f"without_{one.argument}",
                )
            )
        keeping = [
            one
            for one in tried
            if one not in changing and found[one.argument].kept >= _KEPT
        ]
        figure = ", ".join(
            f"{one.argument} {found[one.argument].changed:.0%}" for one in tried
        )
        figure = (
            f"accuracy on training samples {found[tried[0].argument].plain:.0%} after {steps} "
            f"steps; transformed: {figure}"
        )
        data = {one.argument: _data(found[one.argument], names) for one in tried}
        unused = [
            one for one in keeping if not any(getattr(o, one.argument, None) for o in used)
        ]
        if not unused or any(isinstance(other, kind) for other in used):
            findings.append(
                Finding(
                    self.name,
                    "augmentation",
                    figure,
                    "Labels surely survive none of the transforms."
                    if not keeping
                    else "The transforms that labels survive are in use already.",
                    data,
                    arm="transforms",
                )
            )
            return findings
        ...
        return findings


def transforms_for(inputs: Tensor, pad_id: int) -> list[Transform]:
    """Return the transforms that are tried on inputs of this kind.

    Raises:
        NotDoneError: if they are neither images nor texts.
    """
