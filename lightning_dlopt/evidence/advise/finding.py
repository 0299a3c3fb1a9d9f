"""What a probe finds, and the questions that it answers."""

import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from lightning_dlopt.core.checks import check_choice, check_number
from lightning_dlopt.core.errors import ArgumentError

Question: TypeAlias = Literal["optimizer", "rate", "regularizer", "augmentation", "generalization"]

#: The questions that advice answers, in this order.
QUESTIONS: dict[Question, str] = {
    "optimizer": "Which optimizer?",
    "rate": "Which learning rate?",
    "regularizer": "Which regularizer?",
    "augmentation": "Which augmentation?",
    "generalization": "How to generalize better?",
}


class NotDoneError(Exception):
    """A probe can't work on this module or data, or had no time; the message says why."""


class NoTimeError(NotDoneError):
    """A probe had too little time; it may have more at the end."""


#: The severity from which a finding is an alarm; below it, it is an idea to try.
ALARM = 0.3


@dataclass(frozen=True)
class Finding:
    """A figure that a probe measured, and what it leads to.

    Args:
        probe: the probe's name.
        question: which of :data:`QUESTIONS` it belongs to.
        figure: what was measured, with its unit, in a few words.
        reason: in one sentence, why that leads to the suggestion, or to none.
        data: the numbers of the figure, as plain data (numbers, strings, lists, dicts).
        severity: from 0 (no finding) to 1 (nothing will be learned like this); it ranks. From
            :data:`ALARM` on something is amiss; below it, a suggestion is an idea to try.
        suggestion: what to change, in a few words; None without a finding.
        overlay: what applies the suggestion: the content of a configuration file to lay over the
            base (``trainer: callbacks+: [...]``, or keys of model, data or trainer); None if no
            file can.
        arm: a short name for the overlay's file and its arm in a comparison; the probe's with
            underscores if empty.

    Raises:
        ArgumentError: if the severity is outside [0, 1], the question isn't known, or severity
            and suggestion contradict each other.

    Example:
        >>> Finding("class counts", "generalization", "rarest class: 2 %", "None is rare.").arm
        'class_counts'
    """

    probe: str
    question: Question
    figure: str
    reason: str
    data: dict[str, Any] = field(default_factory=dict)
    severity: float = 0.0
    suggestion: str | None = None
    overlay: dict[str, Any] | None = None
    arm: str = ""

    def __post_init__(self) -> None:
        check_choice(self, "question", self.question, tuple(QUESTIONS))
        check_number(self, "severity", self.severity, "[0, 1]")
        if (self.severity > 0) != (self.suggestion is not None):
            raise ArgumentError(
                f"Finding of {self.probe}: severity={self.severity} and "
                f"suggestion={self.suggestion!r}: there is a suggestion exactly if severity is "
                "above 0"
            )
        if not self.arm:
            object.__setattr__(self, "arm", re.sub(r"\W+", "_", self.probe))

    @property
    def is_alarm(self) -> bool:
        """Whether something is amiss."""
        return self.severity >= ALARM

    def to_json(self) -> dict[str, Any]:
        """Return plain data; infinities and NaN are text, since JSON has none."""
        plain: dict[str, Any] = _json(asdict(self))
        return plain


def _json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return value
