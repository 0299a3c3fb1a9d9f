"""The studies that measure the techniques: how they are planned, and what came out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.cards.techniques import ROOT, entries
from lightning_dlopt.evidence.analysis import Analysis, ArmResult, analyze
from lightning_dlopt.evidence.results import FILE, read_study
from lightning_dlopt.evidence.runs import A_A, Study

PLANS = ROOT / "benchmarks" / "cards" / "studies.yaml"
RESULTS = ROOT / "benchmarks" / "results" / "cards"


@dataclass(frozen=True)
class PlannedArm:
    """An arm of a planned study.

    Attributes:
        name: in the study.
        techniques: the classes it is about.
        changes: what it lays over the base: files, or ``KEY=VALUE``.
    """

    name: str
    techniques: tuple[str, ...]
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A planned study.

    Attributes:
        name: of the study and its results' file.
        title: what it is about, in some words.
        base: the configurations of the baseline.
        arms: what is compared with it.
    """

    name: str
    title: str
    base: tuple[str, ...]
    arms: tuple[PlannedArm, ...]


@dataclass(frozen=True)
class Measured:
    """A study and what came out, if it has been run.

    Attributes:
        plan: what was to be run.
        study: its runs; None if there are none yet.
        analysis: what they say; None likewise.
    """

    plan: Plan
    study: Study | None = None
    analysis: Analysis | None = None

    def result(self, arm: str) -> ArmResult | None:
        """Return what came out of an arm; None if it hasn't been run."""
        own = [result for result in self.results() if result.arm == arm and result.pairs]
        return own[0] if own else None

    def results(self) -> list[ArmResult]:
        """Return what came out of every arm, A/A among them."""
        return self.analysis.arms if self.analysis else []

    @property
    def noise(self) -> ArmResult | None:
        """The baseline against itself with other seeds."""
        return self.result(A_A)


@dataclass
class Evidence:
    """All studies."""

    studies: list[Measured] = field(default_factory=list)

    def of(self, technique: str) -> list[tuple[Measured, list[PlannedArm]]]:
        """Return the studies of a technique, each with the arms that are about it."""
        found = []
        for measured in self.studies:
            own = [arm for arm in measured.plan.arms if technique in arm.techniques]
            if own:
                found.append((measured, own))
        return found

    def is_measured(self, technique: str) -> bool:
        """Tell whether some arm of a technique has been run."""
        return any(
            measured.result(arm.name) for measured, arms in self.of(technique) for arm in arms
        )


def _texts(plain: Any) -> tuple[str, ...]:
    return (plain,) if isinstance(plain, str) else tuple(plain)


def read_plans(file: Path = PLANS) -> list[Plan]:
    """Return the studies that are planned.

    Raises:
        ValueError: if an arm is about a technique that there is none of.
    """
    plans = []
    studies = (yaml.safe_load(file.read_text()) or {}) if file.exists() else {}
    for name, plain in studies.items():
        if "arms" not in plain:  # what holds for all studies, such as their short form
            continue
        arms = tuple(
            PlannedArm(arm, _texts(own["technique"]), _texts(own.get("changes", ())))
            for arm, own in plain["arms"].items()
        )
        unknown = {t for arm in arms for t in arm.techniques} - entries().keys()
        if unknown:
            raise ValueError(f"{file}: {name}: there is no technique {', '.join(sorted(unknown))}")
        plans.append(Plan(name, plain["title"], _texts(plain["base"]), arms))
    return plans


def measure(plan: Plan, study: Study) -> Measured:
    """Return what came out of a study.

    Raises:
        ValueError: if it has arms that its plan hasn't.
    """
    unplanned = set(study.arms) - {arm.name for arm in plan.arms}
    if unplanned:
        raise ValueError(f"{plan.name}: the results have unplanned arms: {sorted(unplanned)}")
    return Measured(plan, study, analyze(study))


def read_evidence(
    plans: Path = PLANS, results: Path = RESULTS, read: Callable[[Path], Study] = read_study
) -> Evidence:
    """Return every planned study, with what came out of those that have results.

    Raises:
        ValueError: if there are results of a study that isn't planned.
    """
    evidence = Evidence()
    planned = read_plans(plans)
    there = {path.name for path in results.iterdir()} if results.exists() else set()
    if unplanned := there - {plan.name for plan in planned}:
        raise ValueError(f"{results}: of no planned study: {', '.join(sorted(unplanned))}")
    for plan in planned:
        file = results / plan.name / FILE
        if not file.exists():
            evidence.studies.append(Measured(plan))
            continue
        evidence.studies.append(measure(plan, read(file)))
    return evidence
