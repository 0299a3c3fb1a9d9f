"""The report's sentences: what was found, how it was measured, how to read it."""

import re
from dataclasses import dataclass

from lightning_dlopt.evidence.analysis import Analysis
from lightning_dlopt.evidence.report.numbers import (
    TIMES,
    Scale,
    choose_scale,
    clean,
    count,
    write_factor,
)
from lightning_dlopt.evidence.report.order import compared, in_order
from lightning_dlopt.evidence.runs import A_A, BASELINE, Study


@dataclass(frozen=True)
class Fact:
    """Something about how the study was made.

    Attributes:
        name: what it is about.
        text: not escaped.
        code: whether it is a command or the like.
    """

    name: str
    text: str
    code: bool = False


def write_budget(budget: str) -> str:
    """Return a budget in words.

    Example:
        >>> write_budget("3ep"), write_budget("500"), write_budget("60s")
        ('3 epochs', '500 steps', '60 seconds')
    """
    match = re.fullmatch(r"\s*([\d.]+)\s*(ep|s|)\s*", budget)
    if not match:
        return clean(budget)
    unit = {"ep": "epoch", "s": "second", "": "step"}[match[2]]
    return f"{match[1]} {unit}" if float(match[1]) == 1 else f"{match[1]} {unit}s"


def headline(study: Study, analysis: Analysis) -> str:
    """Return in one sentence what was compared and what came of it."""
    results = compared(analysis)
    direction = "more is better" if study.larger_is_better else "less is better"
    start = (
        f"{count(len(results), 'arm')} against the baseline on {clean(study.outcome)} "
        f"({direction}), "
        f"{count(len(study.seeds), 'seed')}, {write_budget(study.budget)} for each run"
    )
    if not results:
        return f"{start}."
    if not any(result.pairs for result in results):
        return f"{start}: no pair of runs has ended yet."
    told = {verdict: [r for r in results if r.verdict == verdict] for verdict in ("helps", "hurts")}
    helps, hurts = len(told["helps"]), len(told["hurts"])
    rest = len(results) - helps - hurts
    apart = "can't be told apart from the baseline at this many seeds"
    if len(results) == 1:
        return f"{start}: it {results[0].verdict if not rest else apart}."
    parts = [f"{helps} help{'s' * (helps == 1)}", f"{hurts} hurt{'s' * (hurts == 1)}"]
    if rest:
        others = "the rest" if helps + hurts else "all" if rest > 2 else "both"
        parts.append(f"{others} ({rest}) {apart}" if helps + hurts else f"{others} {apart}")
    return f"{start}: of {len(results)} arms, {', '.join(parts)}."


def baseline_line(analysis: Analysis, scale: Scale) -> str:
    """Return the baseline's outcome and its spread."""
    if analysis.baseline_mean is None:
        return "No run of the baseline has finished."
    line = f"The baseline reaches {scale.value(analysis.baseline_mean)}"
    if analysis.baseline_spread is None:
        return f"{line}."
    return f"{line} (standard deviation over seeds {scale.width(analysis.baseline_spread)})."


def all_notes(study: Study, analysis: Analysis) -> list[str]:
    """Return the analysis's notes, and that the baseline hadn't converged, if it hadn't."""
    notes = [clean(note) for note in analysis.notes]
    if analysis.still_improving is not None:
        gain = choose_scale(study, analysis).width(abs(analysis.still_improving))
        notes.append(
            f"The baseline was still improving when it ended: {clean(study.metric)} by {gain} over "
            "the last fifth of the run. With a larger budget the arms may compare otherwise."
        )
    return notes


def changes(study: Study, analysis: Analysis) -> list[tuple[str, list[str]]]:
    """Return each arm's name and what it lays over the base, in the order of the effects."""
    names = [r.arm for r in in_order(study, analysis) if r.arm != A_A]
    return [(clean(name), study.changes.get(name, [])) for name in names]


def measured(study: Study, analysis: Analysis) -> list[Fact]:
    """Return how the study was made."""
    runs = study.runs
    versions = sorted({f"{key} {value}" for run in runs for key, value in run.versions.items()})
    machines = sorted({run.machine for run in runs if run.machine})
    threads = sorted({run.threads for run in runs})
    when = sorted(run.finished_at for run in runs if run.finished_at)
    chosen = "the last weights" if study.select == "last" else f"the best weights by {study.metric}"
    facts = [Fact("Command", study.command, code=True)] if study.command else []
    facts += [
        Fact("Budget", f"{write_budget(study.budget)} for each run"),
        Fact("Seeds", ", ".join(map(str, study.seeds))),
        Fact("Pairs", paired(analysis)),
        Fact("Learning rate", tuned(study)),
        Fact("Weights", f"{chosen[0].upper()}{chosen[1:]} are evaluated"),
        Fact("Outcome", outcome(study)),
    ]
    facts += [Fact("Versions", ", ".join(versions))] if versions else []
    facts += [Fact("Machine", "; ".join(machines))] if machines else []
    facts += [Fact("Threads of a run", ", ".join(map(str, threads)))] if threads else []
    if when:
        facts.append(Fact("Runs ended", " to ".join(sorted({when[0], when[-1]}))))
    return [Fact(fact.name, clean(fact.text), fact.code) for fact in facts]


def paired(analysis: Analysis) -> str:
    """Return what the runs of a pair have in common."""
    ended = [result for result in compared(analysis) if result.pairs]
    parts = []
    for what, other in (
        ("initial weights", [r.arm for r in ended if not r.same_weights]),
        ("batches in equal order", [r.arm for r in ended if not r.same_batches]),
    ):
        but = f" in every arm but {', '.join(other)}" if other else ""
        parts.append(f"equal {what}{but}")
    return f"Runs of a pair have one seed; found: {'; '.join(parts)}" if ended else "None has ended"


def tuned(study: Study) -> str:
    """Return how the learning rates were chosen."""
    if not study.tune:
        return "Not tuned: each arm trains at the rate of its configuration"
    factors = ", ".join(write_factor(factor) for factor in study.tune)
    text = f"Tuned alike in every arm over {factors}, by {study.metric}, on seeds of its own"
    took = {run.rate_factor for run in study.reported(BASELINE).values()}
    return text + "".join(f"; the baseline took {write_factor(factor)}" for factor in sorted(took))


def outcome(study: Study) -> str:
    """Return what is compared."""
    if study.outcome == study.metric:
        return f"{study.outcome}, as logged in validation (there is no test)"
    return f"{study.outcome}, tested once at the end of each run; {study.metric} only chooses"


#: How to read the tables.
READING = [
    "The effect is the arm's outcome less the baseline's, seed by seed, and then the mean; the "
    "interval at 95 % is that of the paired t test.",
    "An arm helps or hurts only if both tests say so at 0.05: the exact sign-flip test, which "
    "counts a failed run as the worst, and the t test with its p adjusted by Holm for the number "
    "of arms. An arm also hurts if it fails significantly more often, and then never helps. "
    "Everything else is can't tell, which doesn't mean that there is no effect.",
    "Seeds needed: at so many, an effect as large as the observed one would be told with a chance "
    "of 80 %.",
    "A/A is the baseline once more with other seeds: what it shows is noise.",
    "Effect at equal time: the arm is stopped when its baseline has ended. Step time, training "
    f"time, peak memory and steps are the arm's in the baseline's (1.10{TIMES}: a tenth more), "
    "medians over pairs.",
    "A learning rate is at edge if the best factor was the smallest or the largest that was tried: "
    "a still better one may lie beyond.",
]
