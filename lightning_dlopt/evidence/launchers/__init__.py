"""Ways to make many runs: in processes here, or on a Ray cluster."""

from collections.abc import Callable, Iterator
from typing import Protocol, TypeAlias

from lightning_dlopt.evidence.jobs import Job
from lightning_dlopt.evidence.runs import Run

#: Makes one run; a function of a module, so that other processes find it by its name.
Work: TypeAlias = Callable[[Job], Run]


class Launcher(Protocol):
    """Makes runs, several at once."""

    @property
    def places(self) -> int:
        """How many runs are made at once."""
        ...

    @property
    def threads(self) -> int:
        """How many threads each of them has."""
        ...

    def launch(
        self, jobs: list[Job], work: Work, started: Callable[[Job], None]
    ) -> Iterator[tuple[Job, Run]]:
        """Yield each job with its run as it ends, having called ``started`` when it began.

        A run whose process dies is made once more; if that dies, too, the run was ``"killed"``.
        What ``work`` raises is raised here, and the other runs are stopped.
        """
        ...
