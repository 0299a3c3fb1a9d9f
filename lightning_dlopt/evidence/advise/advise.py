"""Runs the probes within a budget of time and ranks what they find."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.errors import one_line
from lightning_dlopt.evidence.advise.finding import (
    QUESTIONS,
    Finding,
    NotDoneError,
    NoTimeError,
    Question,
)
from lightning_dlopt.evidence.advise.probe import Probe, find_probes
from lightning_dlopt.evidence.advise.subject import Subject


@dataclass(frozen=True)
class Outcome:
    """What became of a probe.

    Attributes:
        probe: its name.
        questions: that it answers.
        findings: what it found, with severity 0 where nothing is wrong; empty if not done.
        not_done: why it couldn't work, or None if it did.
        cut_off: what it couldn't finish in its time, or None.
        seconds: how long it took.
    """

    probe: str
    questions: tuple[Question, ...]
    findings: list[Finding] = field(default_factory=list)
    not_done: str | None = None
    cut_off: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Advice:
    """What all probes found.

    Attributes:
        outcomes: one for each probe, in the order in which they ran.
        budget: seconds that they had.
        left_out: class names of callbacks that the probes' runs didn't have.
    """

    outcomes: list[Outcome]
    budget: float
    left_out: list[str] = field(default_factory=list)

    @property
    def suggestions(self) -> list[Finding]:
        """The findings that lead to a suggestion, the most severe first."""
        found = [finding for finding in self._findings() if finding.severity > 0]
        return sorted(found, key=lambda finding: -finding.severity)

    def answers(self, question: Question) -> list[Finding]:
        """Return what was found about a question, the most severe first."""
        found = [finding for finding in self._findings() if finding.question == question]
        return sorted(found, key=lambda finding: -finding.severity)

    def _findings(self) -> list[Finding]:
        return [finding for outcome in self.outcomes for finding in outcome.findings]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "budget_seconds": self.budget,
            "left_out_callbacks": self.left_out,
            "questions": {
                question: {
                    "text": text,
                    "findings": [finding.to_json() for finding in self.answers(question)],
                }
                for question, text in QUESTIONS.items()
            },
            "probes": [
                {
                    "probe": one.probe,
                    "questions": list(one.questions),
                    "not_done": one.not_done,
                    "cut_off": one.cut_off,
                    "seconds": round(one.seconds, 3),
                }
                for one in self.outcomes
            ],
        }


def advise(
    subject: Subject,
    budget: float = 60.0,
    probes: Sequence[Probe] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Advice:
    """Run probes on a module and its data, the cheapest first.

    Each gets the part of the time that is left which its share is of those that haven't run, so
    what one doesn't need is the others'. One that had too little has all that is left at the
    end. A probe that can't work is told of and hinders no other.

    Args:
        subject: the module and its data, which stay as they are.
        budget: seconds for all probes together, above 0.
        probes: those to run, in order; all of :func:`find_probes` if None.
        tell: is called with the name of each probe before it runs.

    Raises:
        ArgumentError: if the budget isn't above 0.
    """
    check_number("advise", "budget", budget, "(0, inf)")
    waiting = list(find_probes() if probes is None else probes)
    end = subject.clock() + budget
    outcomes: list[Outcome] = []
    again: dict[str, Outcome] = {}
    while waiting:
        shares = sum(probe.share for probe in waiting)
        probe = waiting.pop(0)
        left = end - subject.clock()
        if left <= 0 and probe.name in again:
            outcomes.append(again[probe.name])
            continue
        if left <= 0:
            why = f"the budget of {budget:g} s was used up before it"
            outcomes.append(Outcome(probe.name, probe.questions, not_done=why))
            continue
        if tell is not None:
            tell(probe.name)
        part = 1.0 if probe.name in again else probe.share / shares
        outcome, no_time = _outcome(probe, subject, left * part)
        if no_time and waiting and probe.name not in again:
            again[probe.name] = outcome
            waiting.append(probe)
        else:
            outcomes.append(outcome)
    return Advice(_with_own_arms(outcomes), budget, subject.left_out())


def _outcome(probe: Probe, subject: Subject, seconds: float) -> tuple[Outcome, bool]:
    """Return what became of a probe, and whether it had too little time to work at all."""
    begin = subject.clock()
    subject.allow(seconds)
    findings: list[Finding] = []
    not_done, no_time = None, False
    try:
        with subject.isolated():
            findings = probe.run(subject)
    except NotDoneError as why:
        not_done = one_line(why)
        no_time = isinstance(why, NoTimeError) or subject.cut_off is not None
    except Exception as error:  # whatever a user's module does when it is probed
        not_done = f"{type(error).__name__}: {one_line(error)}"
    took = subject.clock() - begin
    cut_off = None if no_time else subject.cut_off
    return Outcome(probe.name, probe.questions, findings, not_done, cut_off, took), no_time


def _with_own_arms(outcomes: list[Outcome]) -> list[Outcome]:
    """Return outcomes in which no two findings have the same arm."""
    taken = {"all"}  # is the comparison of all of them
    renamed = []
    for outcome in outcomes:
        findings = []
        for one in outcome.findings:
            arm, number = one.arm, 1
            while arm in taken:
                number += 1
                arm = f"{one.arm}_{number}"
            taken.add(arm)
            findings.append(replace(one, arm=arm))
        renamed.append(replace(outcome, findings=findings))
    return renamed
