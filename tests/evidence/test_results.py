"""Finished runs are never lost or written over, and nothing is added to another study's."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_dlopt.core.errors import DataError
from lightning_dlopt.evidence.results import Results, read_study
from lightning_dlopt.evidence.runs import Point, Run, Study

STUDY = Study(
    metric="val_acc",
    outcome="val_acc",
    larger_is_better=True,
    budget="3ep",
    select="last",
    seeds=[1, 2],
    arms=["a"],
    configs={"baseline": "x: 1", "a": "x: 2"},
    changes={"a": ["x=2"]},
)


def a_run(pair: int, **metrics: float) -> Run:
    curve = [Point(4, 1, 0.25, 0.5)]
    return Run("a", "report", pair, pair + 1, "finished", metrics=metrics, curve=curve)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study" / "results.jsonl"


def test_what_is_added_is_read_again(path: Path) -> None:
    runs = [a_run(0, val_acc=0.5), a_run(1, val_acc=0.75)]
    results = Results(path, STUDY)
    for run in runs:
        results.add(run)
    results.close()
    assert read_study(path) == replace(STUDY, runs=runs)
    assert len(path.read_text().splitlines()) == 3


def test_the_outcome_is_the_tests_if_every_run_has_one(path: Path) -> None:
    results = Results(path, STUDY)
    assert results.study.outcome == "val_acc"
    results.add(a_run(0, val_acc=0.5, test_acc=0.4))
    assert results.study.outcome == "test_acc"
    results.add(a_run(1, val_acc=0.5))
    assert results.study.outcome == "val_acc"
    results.close()


@pytest.mark.parametrize("torn", ['{"run": {"arm', '{"run": {}}', "{"])
def test_a_line_without_an_end_is_cut_off(path: Path, torn: str) -> None:
    results = Results(path, STUDY)
    results.add(a_run(0, val_acc=0.5))
    results.close()
    whole = path.read_text()
    path.write_text(whole + torn)
    assert len(read_study(path).runs) == 1
    results = Results(path, STUDY)
    assert path.read_text() == whole
    results.add(a_run(1, val_acc=0.5))
    results.close()
    assert len(read_study(path).runs) == 2


@pytest.mark.parametrize(
    "line", ["nonsense", '{"run": {"arm": "a"}}', '{"run": {"speed": 1}}', "[]", '{"other": 1}']
)
def test_a_damaged_line_is_an_error_that_changes_nothing(path: Path, line: str) -> None:
    Results(path, STUDY).close()
    content = path.read_text() + line + "\n"
    path.write_text(content)
    for attempt in (lambda: read_study(path), lambda: Results(path, STUDY)):
        with pytest.raises(DataError, match="line 2, is no result of a comparison"):
            attempt()
        assert path.read_text() == content


def test_a_file_without_a_study_is_no_results_file(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"run": a_run(0).to_json()}) + "\n")
    with pytest.raises(DataError, match="holds no study"):
        read_study(path)
    with pytest.raises(DataError, match="can't be read"):
        read_study(path.with_name("missing.jsonl"))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"metric": "val_loss"}, "its metric is 'val_acc', this one's 'val_loss'"),
        ({"budget": "5ep"}, "its budget is '3ep', this one's '5ep'"),
        ({"tune": [1.0, 3.0]}, r"its tune is \[\], this one's \[1.0, 3.0\]"),
        ({"seeds": [2, 3]}, r"its seeds are \[1, 2\], this one's \[2, 3\]"),
        ({"seeds": [1]}, r"its seeds are \[1, 2\], this one's \[1\]"),
        ({"configs": {"baseline": "x: 3", "a": "x: 2"}}, "the configuration of 'baseline' is an"),
        ({"configs": {"baseline": "x: 1", "a": "x: 3"}}, "the configuration of 'a' is another"),
    ],
)
def test_another_study_is_refused(path: Path, changed: dict[str, object], why: str) -> None:
    results = Results(path, STUDY)
    results.add(a_run(0, val_acc=0.5))
    results.close()
    before = path.read_bytes()
    with pytest.raises(DataError, match=f"holds another comparison: {why}"):
        Results(path, replace(STUDY, **changed))  # type: ignore[arg-type]
    assert path.read_bytes() == before


def test_more_seeds_and_arms_are_the_same_study(path: Path) -> None:
    results = Results(path, STUDY)
    results.add(a_run(0, val_acc=0.5))
    results.close()
    more = replace(STUDY, seeds=[1, 2, 3], arms=["a", "b"], configs=STUDY.configs | {"b": "x: 4"})
    results = Results(path, more)
    results.add(a_run(2, val_acc=0.5))
    results.close()
    study = read_study(path)
    assert (study.seeds, study.arms, len(study.runs)) == ([1, 2, 3], ["a", "b"], 2)


def test_two_comparisons_do_not_write_to_one_file(path: Path) -> None:
    first = Results(path, STUDY)
    with pytest.raises(DataError, match="is being written by another comparison"):
        Results(path, STUDY)
    first.close()
    Results(path, STUDY).close()


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let no file of this process grow beyond 4000 bytes, which fails as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_takes_nothing_that_was_finished(path: Path) -> None:
    results = Results(path, STUDY)

    def add_many() -> None:
        for pair in range(100):
            results.add(a_run(pair, val_acc=0.5))

    with pytest.raises(DataError, match="finished runs are kept: make room"):
        add_many()
    content = path.read_text()
    assert content.endswith("}\n")
    assert 2 < len(content.splitlines()) < 20
    assert len(read_study(path).runs) == len(content.splitlines()) - 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        Results(tmp_path / "file" / "results.jsonl", STUDY)


def test_the_lock_ends_with_its_process(path: Path) -> None:
    path.parent.mkdir()
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from tests.evidence.test_results import STUDY\n"
        "from lightning_dlopt.evidence.results import Results\n"
        "results = Results(Path(sys.argv[1]), STUDY)\nos.kill(os.getpid(), 9)"
    )
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    command = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(command, env=environment, cwd=root, check=False).returncode == -9
    Results(path, STUDY).close()
