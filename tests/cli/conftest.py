"""Runs of the ``dlopt`` command in a folder of their own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_dlopt.cli import main

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def dlopt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Return a function that runs the command and returns its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str]:
        capfd.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        out, err = capfd.readouterr()
        return code, out + err

    return run
