"""Runs on a Ray cluster."""

import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_dlopt.core.errors import UserError, one_line
from lightning_dlopt.evidence.jobs import Job
from lightning_dlopt.evidence.launchers import Work
from lightning_dlopt.evidence.launchers.deaths import ATTEMPTS, killed_run
from lightning_dlopt.evidence.launchers.processes import logged_to
from lightning_dlopt.evidence.runs import Run


class RayError(UserError):
    """Ray isn't installed, or its cluster can't be reached."""


class RayCluster:
    """Makes each run as a task of a Ray cluster, whose machines share this one's files.

    Args:
        address: of the cluster, such as ``"ray://host:10001"`` or ``"auto"``; None starts Ray on
            this machine.
        places: how many runs at once; None for as many as the cluster has room for.
        threads: cores for each run.

    Raises:
        RayError: if Ray isn't installed or the cluster can't be reached.
    """

    def __init__(
        self, address: str | None = None, places: int | None = None, threads: int = 1
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise RayError(
                "--launcher ray needs the package ray: pip install 'lightning-dlopt[ray]'"
            ) from error
        self._ray: Any = ray
        self._gpus = 0.0
        if address is not None:
            _check_reachable(address)
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                include_dashboard=False if address is None else None,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise RayError(
                f"the Ray cluster at {address or 'this machine'!r} can't be reached: "
                f"{one_line(error)}"
            ) from error
        resources = self._ray.cluster_resources()
        self.threads = threads
        room = int(resources.get("CPU", 1)) // threads
        if resources.get("GPU"):
            self._gpus, room = 1.0, min(room, int(resources["GPU"]))
        self.places = max(1, min(places or room, room))

    def launch(
        self, jobs: list[Job], work: Work, started: Callable[[Job], None]
    ) -> Iterator[tuple[Job, Run]]:
        """Yield each job with its run; see :class:`~lightning_dlopt.evidence.launchers.Launcher`.

        At most ``places`` tasks are out at once, so that runs begin in the order of ``jobs``.
        """
        ray = self._ray
        # a new process for every run, which no other one has changed
        options = {"num_cpus": self.threads, "num_gpus": self._gpus}
        task = ray.remote(**options, max_calls=1, max_retries=0)(_task)
        waiting = [(job, 1) for job in reversed(jobs)]
        running: dict[Any, tuple[Job, int]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.places:
                    job, attempt = waiting.pop()
                    running[task.remote(replace(job, log=""), work)] = job, attempt
                    started(job)
                (ready,), _ = ray.wait(list(running), num_returns=1)
                job, attempt = running.pop(ready)
                try:
                    outcome, printed = ray.get(ready)
                except ray.exceptions.RayError as error:
                    if attempt < ATTEMPTS:
                        waiting.append((job, attempt + 1))
                    else:
                        yield job, killed_run(job, type(error).__name__)
                    continue
                if job.log:
                    Path(job.log).write_text(printed, encoding="utf-8")
                if not isinstance(outcome, Run):
                    raise UserError(outcome)
                yield job, outcome
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise a RayError if nobody answers at an address; Ray itself would go on asking."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto" and the like are Ray's to resolve
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise RayError(f"the Ray cluster at {address!r} can't be reached: {error}") from error


def _task(job: Job, work: Work) -> tuple[Run | str, str]:
    """Make a run on some machine of the cluster; return it, or why it was refused, and its log."""
    descriptor, log = tempfile.mkstemp(suffix=".txt")
    os.close(descriptor)
    try:
        with logged_to(log):
            try:
                outcome: Run | str = work(job)
            except UserError as error:
                outcome = str(error)
        return outcome, Path(log).read_text(encoding="utf-8", errors="replace")
    finally:
        Path(log).unlink()
