"""The report's tables, as text."""

from collections import defaultdict
from dataclasses import dataclass, field

from lightning_dlopt.evidence.analysis import Analysis, ArmResult
from lightning_dlopt.evidence.report.numbers import (
    NOTHING,
    Scale,
    clean,
    count,
    write_factor,
    write_p,
    write_ratio,
)
from lightning_dlopt.evidence.report.order import in_order, role_of
from lightning_dlopt.evidence.runs import Run, Study

#: What a run was for, when it wasn't for the report.
PURPOSE = {"report": "", "tune": " (tuning)", "calibrate": " (calibration)"}


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        cells: texts, not escaped.
        role: what the row stands for; ``""`` if that has no meaning here.
    """

    cells: list[str]
    role: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first column names the row.

    Attributes:
        columns: their heads.
        rows: from top to bottom.
        words: positions of the columns that hold words and not numbers.
    """

    columns: list[str]
    rows: list[Row]
    words: set[int] = field(default_factory=lambda: {0})


def name_of(result: ArmResult) -> str:
    """Return an arm's name; that of the A/A arm says that it is noise."""
    return f"{result.arm} (noise)" if role_of(result) == "noise" else clean(result.arm)


def verdict_of(result: ArmResult) -> str:
    """Return the verdict; the A/A arm has one only if it was told apart from itself."""
    if role_of(result) != "noise":
        return result.verdict
    return NOTHING if result.verdict == "can't tell" else f"{result.verdict} (by chance)"


def effects(study: Study, analysis: Analysis, scale: Scale) -> Table:
    """Return what each arm does to the outcome, A/A first, then from best to worst."""
    columns = [
        *("arm", clean(study.outcome), "effect", "95 % interval", "p (sign flip)"),
        *("p (t, Holm)", "verdict", "seeds needed", "pairs"),
    ]
    rows = [
        Row(
            [
                name_of(result),
                scale.value(result.mean),
                scale.difference(result.effect),
                scale.interval(result.low, result.high),
                write_p(result.p_flip),
                write_p(result.p_t_holm),
                verdict_of(result),
                NOTHING if result.seeds_needed is None else f"{result.seeds_needed}",
                f"{result.finished}"
                if result.finished == result.pairs
                else f"{result.finished} of {result.pairs}",
            ],
            role_of(result),
        )
        for result in in_order(study, analysis)
    ]
    return Table(columns, rows, words={0, 6})


def costs(study: Study, analysis: Analysis, scale: Scale) -> Table:
    """Return what each arm takes and how it ran, in the order of the effects."""
    columns = [
        *("arm", "effect at equal time", "step time", "training time", "peak memory", "steps"),
        "failed runs",
    ]
    columns += ["learning rate"] if study.tune else []
    rows = []
    for result in in_order(study, analysis):
        cells = [name_of(result), scale.difference(result.equal_time)]
        cells += [
            write_ratio(ratio)
            for ratio in (
                *(result.step_ratio, result.time_ratio),
                *(result.memory_ratio, result.steps_ratio),
            )
        ]
        cells.append(write_failures(result.failures, len(study.reported(result.arm))))
        if study.tune:
            flag = " (at edge)" if result.rate_at_edge else ""
            cells.append(write_factor(result.rate_factor) + flag)
        rows.append(Row(cells, role_of(result)))
    return Table(columns, rows, words={0, 6, 7})


def write_failures(failures: dict[str, int], runs: int) -> str:
    """Return how many runs failed, and in which way.

    Example:
        >>> write_failures({"diverged": 2, "crashed": 1}, 6)
        '3 of 6: 2 diverged, 1 crashed'
    """
    total = sum(failures.values())
    if not total:
        return "0"
    ways = ", ".join(f"{number} {way}" for way, number in failures.items() if number)
    return f"{total} of {max(runs, total)}: {ways}"


def failures(study: Study) -> Table:
    """Return the runs that failed; those of an arm that failed in the same way are one row."""
    alike: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in study.runs:
        if run.status != "finished":
            name = clean(run.arm) + PURPOSE[run.kind]
            alike[name, run.status, clean(run.why) or NOTHING].append(run)
    rows = [
        Row(
            [
                name,
                f"{count(len(runs), 'run')} {status}",
                ", ".join(str(run.seed) for run in runs),
                why,
            ]
        )
        for (name, status, why), runs in alike.items()
    ]
    return Table(["arm", "failure", "seeds", "reason"], rows, words={0, 1, 2, 3})
