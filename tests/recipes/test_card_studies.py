"""The studies behind the method cards name what exists, and every technique is in one."""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

import lightning_dlopt
from lightning_dlopt.cli.catalogue import entries
from lightning_dlopt.core import Technique
from lightning_dlopt.optimizers import Muon

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "benchmarks" / "cards"
FILE: dict[str, Any] = yaml.safe_load((CARDS / "studies.yaml").read_text(encoding="utf-8"))
STUDIES = {name: study for name, study in FILE.items() if name != "quick"}
FAMILIES = ("optimizers", "schedules", "regularization", "augmentation", "structure")


def _arms() -> list[tuple[str, dict[str, Any]]]:
    return list(chain.from_iterable(study["arms"].items() for study in STUDIES.values()))


def _named(path: str) -> set[str]:
    """Return the last parts of all class paths in a file."""

    def walk(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = value.get("class_path", "")
            return {own.rpartition(".")[2]}.union(*map(walk, value.values()))
        return set().union(*map(walk, value)) if isinstance(value, list) else set()

    return walk(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")))


def test_every_technique_is_an_arm() -> None:
    offered = {name for family in FAMILIES for name, _ in entries(family)}
    techniques = {
        name
        for name in offered
        if issubclass(getattr(lightning_dlopt, name), Technique)
        or getattr(lightning_dlopt, name) is Muon
    }
    assert {arm["technique"] for _, arm in _arms()} == techniques


@pytest.mark.parametrize(("name", "arm"), _arms(), ids=[name for name, _ in _arms()])
def test_an_arm_changes_the_base_by_its_technique(name: str, arm: dict[str, Any]) -> None:
    assert name.split()[0] == arm["technique"]
    assert arm["technique"] in set().union(*map(_named, arm["changes"]))


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_study_says_what_compare_needs(study: dict[str, Any]) -> None:
    keys = {"title", "base", "metric", "budget", "seeds", "arms"}
    assert keys <= set(study) <= keys | {"tune"}
    assert study["seeds"] >= 6  # fewer can't be significant
    assert all((ROOT / path).is_file() for path in study["base"])


def test_every_overlay_is_used() -> None:
    used = {path for _, arm in _arms() for path in arm["changes"]}
    used |= {path for study in STUDIES.values() for path in study["base"]}
    teacher = CARDS / "regularization" / "teacher.yaml"
    files = set(CARDS.rglob("*.yaml")) - {CARDS / "studies.yaml", teacher}
    assert files <= {ROOT / path for path in used}
