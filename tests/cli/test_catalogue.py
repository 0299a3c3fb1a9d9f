"""``dlopt list``."""

import lightning_dlopt
from lightning_dlopt.core import Technique
from tests.cli.conftest import Run
from tests.contract.table import TABLE


def test_every_technique_has_one_line(dlopt: Run) -> None:
    code, printed = dlopt("list")
    assert code == 0
    lines = [line.split(maxsplit=1) for line in printed.splitlines() if line.startswith("  ")]
    listed = dict(lines)
    assert set(TABLE) <= set(listed)
    assert {"MLP", "ImageClassifier", "Digits", "FashionMNIST"} <= set(listed)
    assert all(sentence.endswith(".") for sentence in listed.values())
    assert not {"Schedule", "ScheduleMixin", "Technique"} & set(listed)


def test_one_family(dlopt: Run) -> None:
    code, printed = dlopt("list", "schedules")
    assert code == 0
    assert "CosineLR" in printed
    assert "Digits" not in printed
    assert dlopt("list", "recipes")[0] == 2


def test_every_listed_name_can_be_imported_from_the_top(dlopt: Run) -> None:
    names = [line.split()[0] for line in dlopt("list")[1].splitlines() if line.startswith("  ")]
    assert all(hasattr(lightning_dlopt, name) for name in names)
    assert any(issubclass(getattr(lightning_dlopt, name), Technique) for name in names)
