"""What the contract suite must be told of a technique."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_dlopt.core import Technique
from tests.contract.run import Outcome
from tests.contract.tasks import PLAIN, Task


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
        trainer_rivals: settings of the Trainer that can't stand beside it.
        bad: (name of the bad argument, arguments that must be refused).
        refuses: names of the tasks that it refuses by design.
        mixin: the mixin that brings it, and the name of its argument there.
        task: what most clauses train.
        differs: clauses whose equality the technique's definition rules out, each with the
            reason; the clause then holds it to really being different.
        adapt: makes of any task one that it can train, if it needs something of the module; the
            clauses that bring their own tasks train those. The task as it was it must refuse, or
            say that it has no effect.
        trains_alone: whether the tasks that ``adapt`` makes can be trained without it, too.
        shape: gives a new module the structure in which training with the technique ends.
        sets_accumulation: whether it decides itself how many batches make a step.
    """

    technique: type[Technique]
    make: Callable[[], Technique]
    neutral: Callable[[], Technique] | None
    effect: Callable[[Outcome, Task], None]
    useless: Callable[[], Technique]
    useless_task: Task
    rivals: Sequence[Callable[[], Technique]]
    bad: Sequence[tuple[str, Mapping[str, Any]]]
    refuses: frozenset[str] = field(default_factory=frozenset)
    mixin: tuple[type, str] | None = None
    trainer_rivals: Sequence[Mapping[str, Any]] = ()
    task: Task = PLAIN
    differs: Mapping[str, str] = field(default_factory=dict)
    adapt: Callable[[Task], Task] | None = None
    trains_alone: bool = True
    shape: Callable[[Any], None] | None = None
    sets_accumulation: bool = False

    def adapted(self, task: Task) -> Task:
        """Return the task as this technique can train it."""
        return task if self.adapt is None or task is self.task else self.adapt(task)

    def bare(self, task: Task) -> Task:
        """Return the task as it can be trained without this technique."""
        if self.trains_alone:
            return self.adapted(task)
        return PLAIN if task is self.task else task

    def shaped(self, module: Any) -> Any:
        """Give a new module the technique's structure, if it has one, and return it."""
        if self.shape is not None:
            self.shape(module)
        return module

    def holds_equal(self, clause: str, check: Callable[[], None]) -> None:
        """Run an equality check, or see that it fails where the row says that it must."""
        if clause not in self.differs:
            check()
            return
        try:
            check()
        except AssertionError:
            return
        raise AssertionError(f"{clause} holds, though {self.differs[clause]!r} says it can't")

    @property
    def name(self) -> str:
        return self.technique.__name__
