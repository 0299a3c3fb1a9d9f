"""What the contract suite must be told of a technique."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_dlopt.core import Technique
from tests.contract.run import Outcome
from tests.contract.tasks import Task


@dataclass(frozen=True)
class Row:
    """One technique in the table.

    Attributes:
        technique: the class.
        make: builds it with ordinary arguments.
        neutral: builds it at the setting where training must be the baseline's.
        effect: raises AssertionError unless a run shows what the technique promises.
        useless: builds it for ``useless_task``, where it can't change anything.
        useless_task: see there.
        rivals: techniques that can't stand beside it.
        bad: (name of the bad argument, arguments that must be refused).
        refuses: names of the tasks that it refuses by design.
        mixin: the mixin that brings it, and the name of its argument there.
    """

    technique: type[Technique]
    make: Callable[[], Technique]
    neutral: Callable[[], Technique]
    effect: Callable[[Outcome, Task], None]
    useless: Callable[[], Technique]
    useless_task: Task
    rivals: Sequence[Callable[[], Technique]]
    bad: Sequence[tuple[str, Mapping[str, Any]]]
    refuses: frozenset[str] = field(default_factory=frozenset)
    mixin: tuple[type, str] | None = None

    @property
    def name(self) -> str:
        return self.technique.__name__
