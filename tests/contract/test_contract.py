"""Every clause of the contract for every public technique."""

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

import lightning_dlopt
from lightning_dlopt.core import Technique
from tests.contract.clauses import IN_PROCESS
from tests.contract.process_clauses import IN_PROCESSES
from tests.contract.row import Row
from tests.contract.strict_clauses import STRICT
from tests.contract.table import TABLE
from tests.contract.tasks import TASKS

Clause = Callable[[Row, Path], None]


def named(clause: Clause) -> str:
    return clause.__name__


def test_every_public_technique_has_a_row() -> None:
    public = {
        name
        for name in lightning_dlopt.__all__
        if inspect.isclass(cls := getattr(lightning_dlopt, name))
        and issubclass(cls, Technique)
        and cls is not Technique
        and not inspect.isabstract(cls)
    }
    assert public
    assert public == set(TABLE)


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_a_row_makes_known_exceptions_and_not_too_many(row: Row) -> None:
    clauses = {named(clause) for clause in [*IN_PROCESS, *STRICT, *IN_PROCESSES]}
    assert row.refuses <= {*TASKS, "compiled", "sharded", "kept_optimizer", "half_precision"}
    assert len(row.refuses & {*TASKS}) < len(TASKS) / 2, "a technique that refuses most modules"
    assert row.differs.keys() <= clauses
    assert all(len(reason) > 10 for reason in row.differs.values())
    assert row.mixin is not None or "mixin_equals_callback" in row.differs


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
@pytest.mark.parametrize("clause", [*IN_PROCESS, *STRICT], ids=named)
def test_in_process(clause: Clause, row: Row, tmp_path: Path) -> None:
    clause(row, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
@pytest.mark.parametrize("clause", IN_PROCESSES, ids=named)
def test_in_processes(clause: Clause, row: Row, tmp_path: Path) -> None:
    clause(row, tmp_path)
