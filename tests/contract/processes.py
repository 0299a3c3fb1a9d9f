"""Runs in new processes: for resuming, for killing, and for several ranks."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# a server that has torch and Lightning imported, and forks a clean process in milliseconds
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.contract.run", "tests.contract.table", "torch.distributed"])


def _call(
    function: Callable[..., Any], arguments: tuple[Any, ...], log: str, env: dict[str, str]
) -> None:
    os.environ.update(env)
    torch.set_num_threads(1)
    with Path(log).open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout.flush()
        function(*arguments)


def call_in_process(
    function: Callable[..., Any], *arguments: Any, folder: Path, killed: bool = False
) -> None:
    """Call a function in a new process and wait for it.

    Args:
        function: a module-level function.
        *arguments: its arguments.
        folder: where the process's output goes.
        killed: the process is expected to be killed by signal 9.
    """
    log = folder / f"process-{len(list(folder.glob('process-*')))}.log"
    process = _CONTEXT.Process(target=_call, args=(function, arguments, str(log), {}))
    process.start()
    process.join(timeout=120)
    if process.exitcode is None:
        process.kill()
    expected = -9 if killed else 0
    assert process.exitcode == expected, f"exit code {process.exitcode}\n{log.read_text()}"


def call_on_ranks(
    function: Callable[..., Any], *arguments: Any, folder: Path, ranks: int = 2
) -> None:
    """Call a function in ``ranks`` processes that Lightning takes for those of one job."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes, logs = [], []
    for rank in range(ranks):
        log = folder / f"rank-{rank}.log"
        env = {
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "GLOO_SOCKET_IFNAME": "lo",
        }
        processes.append(
            _CONTEXT.Process(target=_call, args=(function, (rank, *arguments), str(log), env))
        )
        logs.append(log)
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        if process.exitcode is None:
            process.kill()
    for process, log in zip(processes, logs, strict=True):
        assert process.exitcode == 0, f"exit code {process.exitcode}\n{log.read_text()}"
