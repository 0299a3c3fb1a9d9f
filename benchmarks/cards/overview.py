"""The index of the cards, and the tables that the README shows of the same data."""

import re
from collections.abc import Callable
from functools import partial

from benchmarks.cards import numbers
from benchmarks.cards.card import MADE
from benchmarks.cards.docstrings import markdown
from benchmarks.cards.effects import NOT_MEASURED, budget, table
from benchmarks.cards.measured import Evidence, Measured, PlannedArm
from benchmarks.cards.networks_measured import Runs, networks_table
from benchmarks.cards.numbers import NOTHING, Unit
from benchmarks.cards.techniques import FAMILIES, Entry, card_of, entries

READING = """\
Every effect is the mean difference between runs with the technique and runs without it, pair by
pair: both of a pair have the same seed, and so the same initial weights and the same order of
batches. The interval holds the true difference with 95 % confidence, for this recipe, data and
budget. *Helps* and *hurts* are said only if two tests agree that chance alone would seldom do it
(the t test of the differences, adjusted for the number of arms in its study, and the exact
sign-flip test). ***Can't tell* is not *no effect***: the interval says what the effect may be, and
the number of seeds how many pairs would tell an effect of the size that was observed. Bad results
stand here like good ones. A/A is the baseline against itself with other seeds: what it differs by
is chance. At equal time a run is stopped when its baseline had ended. Times of a step are medians
over the pairs, as is memory, the most that the process held. All were measured with small networks
and short runs on a CPU, as each card says; a technique that is made for long runs of large networks
can't show there what it is for."""


def family_table(family: str, evidence: Evidence, cards: str = "") -> str:
    """Return the techniques of a family with what was measured, a row for each arm.

    Args:
        family: its folder.
        evidence: all studies.
        cards: where the cards lie, such as ``docs/techniques/``.
    """
    rows = [["technique", "study", "effect (95 % interval)", "verdict", "time of a step"]]
    for entry in entries().values():
        if entry.family == family and entry.kind != "network":
            rows += _rows(entry, evidence, cards)
    return table(rows)


def _rows(entry: Entry, evidence: Evidence, cards: str) -> list[list[str]]:
    name = f"[`{entry.name}`]({cards}{entry.file})"
    rows = []
    for measured, arms in evidence.of(entry.name):
        for arm in arms:
            result = measured.result(arm.name)
            if result is None or measured.study is None:
                continue
            unit = Unit.of(measured.study)
            failed = f"; failed: {numbers.failures(result)}" if result.failures else ""
            rows.append(
                [
                    name,
                    _place(entry, measured, arm),
                    unit.interval(result) + ("" if unit.name == "points" else f" {unit.name}"),
                    numbers.verdict(result) + failed,
                    numbers.times(result.step_ratio),
                ]
            )
    return rows or [[name, NOTHING, NOT_MEASURED, NOTHING, NOTHING]]


def _place(entry: Entry, measured: Measured, arm: PlannedArm) -> str:
    """Return the study, and what tells the arm from others of the same technique."""
    own = arm.name.removeprefix(entry.name).strip()
    return f"{measured.plan.name}, {own}" if own else measured.plan.name


def studies_table(evidence: Evidence) -> str:
    """Return the studies: what was the baseline, how long the runs were, and how many."""
    rows = [["study", "baseline", "budget", "pairs", "baseline's outcome", "A/A"]]
    for measured in evidence.studies:
        rows.append([f"`{measured.plan.name}`: {measured.plan.title}", *_outline(measured)])
    return table(rows)


def verdicts_table(evidence: Evidence, cards: str = "") -> str:
    """Return which arms helped, which hurt, and of which it can't be told, by study."""
    told = ("helps", "can't tell", "hurts")
    rows = [["study", *told]]
    for measured in evidence.studies:
        by_verdict: dict[str, list[str]] = {verdict: [] for verdict in told}
        for arm in measured.plan.arms:
            result = measured.result(arm.name)
            if result is not None and measured.study is not None:
                effect = Unit.of(measured.study).interval(result).partition(" (")[0]
                file = entries()[arm.techniques[0]].file
                name = arm.name.removeprefix("UseOptimizer ")
                by_verdict[result.verdict].append(f"[{name}]({cards}{file}) {effect}")
        if any(by_verdict.values()):
            rows.append([measured.plan.name, *("; ".join(by_verdict[one]) for one in told)])
    return table(rows)


def _outline(measured: Measured) -> list[str]:
    base = " and ".join(f"`{file}`" for file in measured.plan.base)
    if measured.study is None or measured.analysis is None:
        return [base, NOTHING, NOTHING, NOT_MEASURED, NOTHING]
    unit = Unit.of(measured.study)
    mean = f"{measured.study.outcome} {unit.plain(measured.analysis.baseline_mean)}"
    spread = f" ± {unit.plain(measured.analysis.baseline_spread)}"
    noise = unit.interval(measured.noise) if measured.noise else NOTHING
    return [base, budget(measured.study), str(len(measured.study.seeds)), mean + spread, noise]


def index(evidence: Evidence, runs: Runs) -> str:
    """Return the page that leads to the cards."""
    parts = [
        MADE,
        "# Techniques",
        "A card for each technique: what it changes in training, where it is from, when to use it "
        "and when not, what it costs, and what was measured.",
        "## How to read the effects",
        READING,
        "Effects are in points (hundredths) of accuracy unless another unit stands there. "
        "`python -m benchmarks.cards --write` makes these pages from the docstrings and from "
        "`benchmarks/results`; `--check` tells which of them are out of date.",
        "## Studies",
        studies_table(evidence),
    ]
    for family, title in FAMILIES.items():
        parts += [f"## {title[0].upper()}{title[1:]}", _what_table(family)]
        if family == "structure":
            parts += ["Networks at an equal number of parameters:", networks_table(runs)]
        parts += ["Measured:", family_table(family, evidence)]
    return "\n\n".join(parts) + "\n"


def _what_table(family: str) -> str:
    rows = [["technique", "what it does"]]
    for entry in entries().values():
        if entry.family == family:
            what = markdown(entry.docstring.summary, card_of).replace("|", r"\|")
            rows.append([f"[`{entry.name}`]({entry.file})", what])
    return table(rows)


def rewritten(text: str, evidence: Evidence, runs: Runs, cards: str = "docs/techniques/") -> str:
    """Return a page with what stands between its markers made anew.

    A marked part begins with ``<!-- cards:begin NAME -->`` and ends with ``<!-- cards:end NAME
    -->``, each in a line of its own. The name is that of a family, ``networks``, ``studies`` or
    ``verdicts``.

    Raises:
        ValueError: if a name is none of these, or a part has no end.
    """
    makers: dict[str, Callable[[], str]] = {
        **{family: partial(family_table, family, evidence, cards) for family in FAMILIES},
        "networks": partial(networks_table, runs, cards),
        "studies": partial(studies_table, evidence),
        "verdicts": partial(verdicts_table, evidence, cards),
    }

    def anew(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in makers:
            raise ValueError(
                f"cards:begin {name}: there is no such table, only {', '.join(makers)}"
            )
        return f"{found['begin']}\n\n{makers[name]()}\n\n{found['end']}"

    marked = re.compile(
        r"(?P<begin><!-- cards:begin (?P<name>\S+) -->).*?(?P<end><!-- cards:end (?P=name) -->)",
        re.DOTALL,
    )
    begun, ended = text.count("<!-- cards:begin "), text.count("<!-- cards:end ")
    whole = len(marked.findall(text))
    if not begun == ended == whole:
        raise ValueError(f"{begun} parts begin with cards:begin, and only {whole} end rightly")
    return marked.sub(anew, text)
