"""Gap between training and validation after a short run."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from lightning_dlopt.core.batch import find_key, get_field
from lightning_dlopt.core.errors import ArgumentError, TechniqueError
from lightning_dlopt.core.sample_count import count_samples
from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError, Question
from lightning_dlopt.evidence.advise.overlays import add_callback, callback_names
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.subject import Subject

_STEPS, _LEAST, _BATCHES = 300, 30, 10
#: The gap from which it is worth a word: of the loss as a share of what training has gained, and
#: of an accuracy.
_LOSS_GAP, _ACCURACY_GAP = 0.25, 0.12
#: The accuracy gap below which a gap of the loss, which confident mistakes make, is no alarm.
_SMALL, _IDEA = 0.05, 0.25


def loss_gap(start: float, train: float, held_out: float) -> float:
    """Return by how much the held-out loss is above training's, as a share of training's gain.

    0 means that all that was learned holds for new data, 1 that nothing does.

    Example:
        >>> loss_gap(2.5, 0.5, 1.5)
        0.5
    """
    gain = start - train
    return (held_out - train) / gain if gain > 0 else 0.0


def named(metrics: Mapping[str, float], word: str) -> str | None:
    """Return the first metric in whose name a word is, or None."""
    return next((name for name in metrics if word in name.lower()), None)


class TrainGap(Probe):
    """Trains for a while, and validates on training data and on validation data alike."""

    name = "train/validation gap"
    questions: ClassVar[tuple[Question, ...]] = ("regularizer", "generalization")
    share = 2.0

    def run(self, subject: Subject) -> list[Finding]:
        """Compare the module's own validation metrics on both."""
        train = subject.batches(_BATCHES)
        held_out = self._held_out(subject, train)
        if not held_out:
            raise NotDoneError("there is no validation data")
        before = subject.evaluate(subject.copy(), held_out)
        if not before:
            raise NotDoneError("the validation step logs nothing")
        # a tenth of the time stays for validation
        training = subject.train(max_steps=subject.affordable(_STEPS, _LEAST, runs=1.1))
        on_train = subject.evaluate(training.module, train)
        on_held_out = subject.evaluate(training.module, held_out)
        gap, figure, data = self._gap(before, on_train, on_held_out)
        figure += f", after {training.steps} steps"
        data["steps"] = training.steps
        if gap < 1:
            reason = (
                "What is learned holds for new data so far: there is no room yet for a "
                "regularizer; a longer run may show a gap."
            )
            return [Finding(self.name, one, figure, reason, dict(data)) for one in self.questions]
        severity = min(0.9, 0.3 + 0.2 * gap)
        if data.get("train_accuracy", 1.0) - data.get("validation_accuracy", 0.0) < _SMALL:
            severity = _IDEA
        reason = (
            "The network learns its training data by heart: much of what it gains there isn't "
            "gained on new data."
        )
        found = [self._regularizer(subject), self._augmentation(subject, train[0])]
        return [
            Finding(self.name, one, figure, reason, dict(data), severity, text, overlay, arm)
            for one, (text, overlay, arm) in zip(self.questions, found, strict=True)
        ]

    @staticmethod
    def _held_out(subject: Subject, train: list[Any]) -> list[Any]:
        """Return batches of validation with about as many samples as there are of training."""
        try:
            wanted = sum(count_samples(batch) for batch in train)
            first = [count_samples(batch) for batch in subject.batches(1, "val")]
            count = math.ceil(wanted / max(first[0], 1)) if first else 0
        except ArgumentError:
            count = _BATCHES
        return subject.batches(count, "val")

    @staticmethod
    def _gap(
        before: Mapping[str, float], train: Mapping[str, float], held_out: Mapping[str, float]
    ) -> tuple[float, str, dict[str, Any]]:
        """Return the gap in units of what is worth a word, in words, and as data."""
        gap, figures, data = -math.inf, list[str](), dict[str, Any]()
        if (name := named(before, "loss")) is not None:
            share = loss_gap(before[name], train[name], held_out[name])
            gap = share / _LOSS_GAP
            figures.append(
                f"loss {train[name]:.3g} in training and {held_out[name]:.3g} in validation "
                f"({share:.0%} of the gain)"
            )
            data |= {"train_loss": train[name], "validation_loss": held_out[name]}
            data |= {"start_loss": before[name], "loss_gap": share}
        if (name := named(before, "acc")) is not None:
            difference = train[name] - held_out[name]
            gap = max(gap, difference / _ACCURACY_GAP)
            figures.append(f"accuracy {train[name]:.1%} and {held_out[name]:.1%}")
            data |= {"train_accuracy": train[name], "validation_accuracy": held_out[name]}
        if not figures:
            raise NotDoneError(
                "validation logs neither a loss nor an accuracy by name: " + ", ".join(before)
            )
        return gap, "; ".join(figures), data

    @staticmethod
    def _regularizer(subject: Subject) -> tuple[str, dict[str, Any] | None, str]:
        there = callback_names(subject.config)
        if not there & {"L2", "ElasticNet"}:
            return "an L2 penalty", add_callback("L2", strength=0.001), "l2"
        if "LabelSmoothing" not in there:
            return "label smoothing", add_callback("LabelSmoothing", smoothing=0.1), "smoothing"
        return "a stronger penalty, dropout, or a smaller network", None, "regularizer"

    @staticmethod
    def _augmentation(subject: Subject, batch: Any) -> tuple[str, dict[str, Any] | None, str]:
        """Return an augmentation that suits the inputs and isn't there."""
        there = callback_names(subject.config)
        try:
            inputs = get_field(batch, find_key(batch, "input"))
        except TechniqueError:
            inputs = None
        is_image = isinstance(inputs, Tensor) and inputs.dim() == 4
        is_float = isinstance(inputs, Tensor) and inputs.is_floating_point()
        is_text = isinstance(inputs, Tensor) and inputs.dim() == 2 and not is_float
        if is_image and "RandomGeometry" not in there:
            pixels = max(1, round(inputs.shape[-1] / 14))
            overlay = add_callback("RandomGeometry", rotation=10.0, scale=[0.9, 1.1], crop=pixels)
            return f"rotation, scaling and shifts by {pixels} pixels", overlay, "geometry"
        if is_float and not there & {"MixUp", "CutMix", "RandomMix"}:
            return "mixing of samples", add_callback("MixUp", alpha=0.2), "mix_up"
        if is_text and "DeleteTokens" not in there:
            return "deletion of tokens", add_callback("DeleteTokens", rate=0.1), "delete_tokens"
        return "more data, a smaller network, or an earlier stop", None, "augmentation"
