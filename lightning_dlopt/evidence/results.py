"""The results of a study on disk: JSON lines, of which the first says what the study is.

The file only grows. A line is written at once and whole; what a full disk or a killed process
leaves of one is cut off, and its run is made again.
"""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from lightning_dlopt.core.errors import DataError
from lightning_dlopt.evidence.runs import BASELINE, Run, Study

FILE = "results.jsonl"
_IDENTITY = ("metric", "larger_is_better", "budget", "select", "tune")


def read_study(path: Path) -> Study:
    """Return the study in a results file.

    Raises:
        DataError: if the file is missing, damaged or no results file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    study, runs = None, []
    whole, _, _torn = text.rpartition("\n")  # a line without an end was never finished
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            content = json.loads(line)
            if "study" in content:
                study = Study(**{**content["study"], "runs": []})
            else:
                runs.append(Run.from_json(content["run"]))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path}, line {number}, is no result of a comparison ({error}): the file is "
                "damaged or of another kind"
            ) from error
    if study is None:
        raise DataError(f"{path} holds no study: its first line must say what was compared")
    return with_outcome(replace(study, runs=runs))


def test_counterpart(metric: str) -> str:
    """Return what the test calls a metric of validation.

    Example:
        >>> test_counterpart("val_accuracy"), test_counterpart("valid/loss"), test_counterpart("f1")
        ('test_accuracy', 'test/loss', 'f1')
    """
    return re.sub(r"(?<![a-z])(validation|valid|val)(?![a-z])", "test", metric)


def with_outcome(study: Study) -> Study:
    """Return a study whose outcome is the test's counterpart of the metric, if that is logged."""
    test = test_counterpart(study.metric)
    runs = [run for run in study.runs if run.kind == "report" and run.status == "finished"]
    tested = bool(runs) and test != study.metric and all(test in run.metrics for run in runs)
    return replace(study, outcome=test if tested else study.metric)


class Results:
    """A results file to which runs are added.

    Args:
        path: the file; it is made if it isn't there.
        study: what is compared.

    Raises:
        DataError: if the file is of another study, or another process writes to it.
    """

    def __init__(self, path: Path, study: Study) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        except OSError as error:
            raise DataError(f"{path} can't be written: {error.strerror}") from error
        try:
            _lock(self._file, path)
            self.study = self._opened(study)
        except BaseException:
            self._file.close()
            raise

    def _opened(self, study: Study) -> Study:
        content = self.path.read_bytes()
        kept = content.rpartition(b"\n")[0] + b"\n" if b"\n" in content else b""
        before = None
        if kept:
            before = read_study(self.path)
            check_same_study(before, study, self.path)
        self._file.truncate(len(kept))
        header = _header(study)
        if before is None or _header(before) != header:
            self._write({"study": header})
        return with_outcome(replace(study, runs=before.runs if before else []))

    def add(self, run: Run) -> None:
        """Write a run's line.

        Raises:
            DataError: if there is no room; what was there before stays as it was.
        """
        self._write({"run": run.to_json()})
        self.study = with_outcome(replace(self.study, runs=[*self.study.runs, run]))

    def close(self) -> None:
        """Let others write."""
        self._file.close()

    def _write(self, content: dict[str, Any]) -> None:
        size = os.fstat(self._file.fileno()).st_size
        try:
            self._file.write((json.dumps(content) + "\n").encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.close()  # tries once more to write what it holds
            with contextlib.suppress(OSError):
                os.truncate(self.path, size)
            raise DataError(
                f"{self.path} can't be written ({error.strerror}); finished runs are kept: make "
                "room and give the same command again"
            ) from error


def _lock(file: IO[bytes], path: Path) -> None:
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"{path} is being written by another comparison") from error


def _header(study: Study) -> dict[str, Any]:
    header = asdict(replace(study, runs=[], outcome=study.metric))
    del header["runs"]
    return header


def check_same_study(before: Study, now: Study, path: Path) -> None:
    """Raise a DataError if results belong to another study; arms and seeds may have been added."""
    for why in _differences(before, now):
        raise DataError(
            f"{path} holds another comparison: {why}; give this one a folder of its own (--output)"
        )


def _differences(before: Study, now: Study) -> Iterator[str]:
    for name in _IDENTITY:
        there, here = getattr(before, name), getattr(now, name)
        if there != here:
            yield f"its {name} is {there!r}, this one's {here!r}"
    if before.seeds != now.seeds[: len(before.seeds)]:
        yield f"its seeds are {before.seeds}, this one's {now.seeds}"
    for arm in [BASELINE, *before.arms]:
        if arm in now.configs and before.configs[arm] != now.configs[arm]:
            yield f"the configuration of {arm!r} is another"
