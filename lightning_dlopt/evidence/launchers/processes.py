"""Runs in processes of this machine, each in a new one."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from lightning_dlopt.core.errors import UserError
from lightning_dlopt.evidence.jobs import Job
from lightning_dlopt.evidence.launchers import Work
from lightning_dlopt.evidence.launchers.deaths import ATTEMPTS, killed_run
from lightning_dlopt.evidence.machine import usable_cores
from lightning_dlopt.evidence.runs import Run

#: Seconds that a process has to end after it has told its run.
_LEAVING = 10


class Processes:
    """Makes each run in a process of its own, several at once.

    Nothing that one run leaves behind reaches another. On Linux and macOS the processes are forked
    from one that has imported everything, so that a run begins at once.

    Args:
        places: how many runs at once; None for as many as there are cores, or CUDA devices.
        preload: the modules that every run needs.
    """

    def __init__(self, places: int | None = None, preload: list[str] | None = None) -> None:
        import torch

        self._devices = torch.cuda.device_count()
        cores = usable_cores()
        self.places = places or self._devices or cores
        self.threads = max(1, cores // self.places)
        method = "spawn" if sys.platform == "win32" else "forkserver"
        self._context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload(["__main__", *(preload or [])])

    def launch(
        self, jobs: list[Job], work: Work, started: Callable[[Job], None]
    ) -> Iterator[tuple[Job, Run]]:
        """Yield each job with its run; see :class:`~lightning_dlopt.evidence.launchers.Launcher`.

        The order in which runs begin is that of ``jobs``.
        """
        waiting = deque((job, 1) for job in jobs)
        running: dict[int, _Running] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.places:
                    job, attempt = waiting.popleft()
                    place = min(set(range(self.places)) - set(running))
                    running[place] = self._start(job, attempt, work, place)
                    started(job)
                ready = wait([one.connection for one in running.values()])
                for place, one in list(running.items()):
                    if one.connection not in ready:
                        continue
                    del running[place]
                    run = one.result()
                    if isinstance(run, Run):
                        yield one.job, run
                    elif one.attempt < ATTEMPTS:
                        waiting.appendleft((one.job, one.attempt + 1))
                    else:
                        yield one.job, killed_run(one.job, run)
        finally:
            for one in running.values():
                one.stop()

    def _start(self, job: Job, attempt: int, work: Work, place: int) -> "_Running":
        ours, theirs = self._context.Pipe(duplex=False)
        device = str(place % self._devices) if self._devices else None
        process = self._context.Process(
            target=_child, args=(job, work, theirs, device), name=job.name
        )
        process.start()
        theirs.close()
        return _Running(job, attempt, process, ours)


@dataclass
class _Running:
    job: Job
    attempt: int
    process: Any
    connection: Connection

    def result(self) -> Run | str:
        """Return the run, or how the process died.

        Raises:
            UserError: what the run has raised.
        """
        try:
            outcome = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            return signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        finally:
            self.connection.close()
        self.process.join(_LEAVING)
        if self.process.is_alive():  # a thread or a process that the run has left behind keeps it
            self.process.kill()
            self.process.join()
        if isinstance(outcome, Run):
            return outcome
        raise UserError(outcome)

    def stop(self) -> None:
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
        self.connection.close()


def _child(job: Job, work: Work, connection: Connection, device: str | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    with logged_to(job.log):
        try:
            outcome: Run | str = work(job)
        except UserError as error:
            outcome = str(error)
    connection.send(outcome)
    connection.close()


def _end_with_parent() -> None:
    """End this process when the command is no more, however that came to its end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def logged_to(path: str) -> Iterator[None]:
    """Write what this process prints in the block to a file, that of its children included."""
    if not path:
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    before = [os.dup(1), os.dup(2)]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in enumerate(before, 1):
            os.dup2(kept, number)
            os.close(kept)
        os.close(file)
