"""How a comparison goes on, on the terminal."""

import io
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from lightning_dlopt.evidence.jobs import Job
from lightning_dlopt.evidence.runs import Run, Study

_TITLES = {
    "trial": "trying each arm for one step",
    "calibrate": "finding out how many steps the budget holds",
    "tune": "trying learning rates",
    "compare": "comparing",
}


def _make_console() -> Console:
    """Return a console that writes what its encoding lacks by its code, and doesn't give up."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return Console()


class Progress:
    """A table of the arms with the time left; where there is no terminal, a line for each run.

    Args:
        study: returns the study as it is now.
        console: where to print.
    """

    def __init__(self, study: Callable[[], Study], console: Console | None = None) -> None:
        self._study = study
        self._console = console or _make_console()
        self._live: Live | None = None
        self._stage = ""
        self._jobs: list[Job] = []
        self._running: list[Job] = []
        self._ended: list[tuple[Job, Run]] = []
        self._begin = 0.0

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._table)
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live is not None:
            self._live.stop()

    def planned(self, stage: str, jobs: list[Job]) -> None:
        """Hear which runs are missing."""
        self._stage, self._jobs, self._running, self._ended = stage, jobs, [], []
        self._begin = time.monotonic()
        if self._live is None:
            self._console.print(f"{_TITLES[stage]}: {len(jobs)} runs", highlight=False)

    def started(self, job: Job) -> None:
        """Hear that a run has begun."""
        if job not in self._running:  # it may be its second attempt
            self._running.append(job)

    def ended(self, job: Job, run: Run) -> None:
        """Hear that it has come to an end."""
        self._running.remove(job)
        self._ended.append((job, run))
        if self._live is None:
            value = self._study().value(run)
            reached = [] if value is None else [f"{self._study().outcome} {value:.4f}"]
            told = [run.status, *reached, f"{run.seconds:.0f} s", *([run.why] if run.why else [])]
            self._console.print(
                f"[{len(self._ended)}/{len(self._jobs)}] {job.name}: {', '.join(told)}; "
                f"{self._left()}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    def _left(self) -> str:
        done = len(self._ended)
        if not done:
            return "time left: not known yet"
        seconds = (time.monotonic() - self._begin) / done * (len(self._jobs) - done)
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60:02} min left" if minutes else "a moment left"

    def _table(self) -> Table:
        study = self._study()
        table = Table(
            title=f"{_TITLES.get(self._stage, '')}: {len(self._ended)} of {len(self._jobs)} runs",
            caption=self._left(),
        )
        for name, side in (("arm", "left"), ("done", "right"), ("failed", "right")):
            table.add_column(name, justify=side)  # type: ignore[arg-type]
        table.add_column(escape(study.outcome), justify="right")
        table.add_column("running")
        for arm in dict.fromkeys(job.arm for job in self._jobs):
            ended = [run for job, run in self._ended if job.arm == arm]
            values = [value for run in ended if (value := study.value(run)) is not None]
            table.add_row(
                escape(arm),
                f"{len(ended)}/{sum(job.arm == arm for job in self._jobs)}",
                str(sum(run.status != "finished" for run in ended) or ""),
                f"{sum(values) / len(values):.4f}" if values else "",
                ", ".join(f"seed {job.seed}" for job in self._running if job.arm == arm),
            )
        return table
