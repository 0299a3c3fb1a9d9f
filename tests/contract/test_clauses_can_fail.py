"""The contract suite itself: every clause catches a technique that breaks it."""

from pathlib import Path

import pytest

from tests.contract.clauses import IN_PROCESS
from tests.contract.planted import GOOD
from tests.contract.planted_strict import ALL_FAULTS, ALL_PLANTED
from tests.contract.process_clauses import IN_PROCESSES
from tests.contract.strict_clauses import STRICT

CLAUSES = {clause.__name__: clause for clause in [*IN_PROCESS, *STRICT, *IN_PROCESSES]}
SLOW = {clause.__name__ for clause in IN_PROCESSES}


def marked(name: str, *values: str) -> object:
    return pytest.param(name, *values, marks=[pytest.mark.slow] if name in SLOW else [])


def test_every_clause_has_a_fault_to_catch() -> None:
    assert set().union(*ALL_FAULTS.values()) == set(CLAUSES)


@pytest.mark.parametrize("clause", [marked(name) for name in CLAUSES])
def test_a_good_technique_keeps_every_clause(clause: str, tmp_path: Path) -> None:
    CLAUSES[clause](GOOD, tmp_path)


@pytest.mark.parametrize(
    ("clause", "fault"),
    [
        marked(clause, cls.__name__)
        for cls, clauses in ALL_FAULTS.items()
        for clause in sorted(clauses)
    ],
)
def test_a_clause_catches_its_fault(clause: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        CLAUSES[clause](ALL_PLANTED[fault], tmp_path)
