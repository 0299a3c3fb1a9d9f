"""What the studies say of a technique, as Markdown: good, bad and no effects alike."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.cards import numbers
from benchmarks.cards.measured import Evidence, Measured, Plan, PlannedArm
from benchmarks.cards.numbers import NOTHING, Unit
from benchmarks.cards.techniques import ROOT, Entry
from lightning_dlopt.evidence.analysis import Analysis, ArmResult
from lightning_dlopt.evidence.runs import A_A, BASELINE, Study

#: From a card to the project's folder.
UP = "../../"
NOT_MEASURED = "not measured yet"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows, of which the first is the head, as a Markdown table."""
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def effects(entry: Entry, evidence: Evidence) -> str:
    """Return the section of a card on measured effects."""
    sections = [
        _one_study(measured, measured.study, measured.analysis, arms)
        for measured, arms in evidence.of(entry.name)
        if measured.study and measured.analysis
    ]
    return "\n\n".join(sections)


def _one_study(measured: Measured, study: Study, analysis: Analysis, arms: list[PlannedArm]) -> str:
    unit = Unit.of(study)
    results = [(arm, measured.result(arm.name)) for arm in arms]
    noise = measured.noise
    shown = [result for _, result in results if result] + ([noise] if noise else [])
    parts = [f"### {measured.plan.title}"]
    if shown:
        parts.append(_effect_table(shown, study, unit))
    parts += [_reading(result, unit) for _, result in results if result]
    missing = [f"`{arm.name}`" for arm, result in results if result is None]
    if missing:
        parts.append(f"{', '.join(missing)}: {NOT_MEASURED}.")
    notes = [note for note in analysis.notes if _concerns(note, arms, study)]
    if analysis.still_improving is not None:
        gain = unit.plain(analysis.still_improving)
        notes.append(
            f"The baseline was still improving at the end, by {gain} {unit.name} in the last fifth "
            "of the run: longer runs may end otherwise."
        )
    parts += [f"> **Note.** {note}" for note in notes]
    parts.append(_conditions(measured.plan, arms, study, analysis))
    made = "<details><summary>The command that made it</summary>"
    parts.append(f"{made}\n\n```bash\n{_command(study)}\n```\n\n</details>")
    return "\n\n".join(parts)


def _command(study: Study) -> str:
    """Return the command of a study, a long one with an option in each line."""
    command = " ".join(study.command.split()) or "# not recorded"
    return command if len(command) <= 100 else command.replace(" --", " \\\n    --")


def _effect_table(results: list[ArmResult], study: Study, unit: Unit) -> str:
    head = [
        "arm",
        f"effect, {unit.name} (95 % interval)",
        "verdict",
        "pairs",
        "p, sign-flip",
        "p, t",
        "p, t, by Holm",
        "effect at equal time",
        "failed runs",
        "rate",
    ]
    rows = [
        [
            _arm(result),
            unit.interval(result),
            NOTHING if result.arm == A_A else numbers.verdict(result),
            str(result.pairs),
            numbers.probability(result.p_flip),
            numbers.probability(result.p_t),
            numbers.probability(result.p_t_holm),
            unit.signed(result.equal_time),
            numbers.failures(result),
            numbers.rate(result, study),
        ]
        for result in results
    ]
    return table([head, *rows])


def costs(entry: Entry, evidence: Evidence) -> str:
    """Return the table of a card on what a technique costs, empty if that isn't measured."""
    head = ["ratio to the baseline", "time of a step", "training time", "memory", "steps", "study"]
    rows = []
    for measured, arms in evidence.of(entry.name):
        own = [result for arm in arms if (result := measured.result(arm.name))]
        noise = [measured.noise] if own and measured.noise else []
        rows += [
            [
                _arm(result),
                numbers.times(result.step_ratio),
                numbers.times(result.time_ratio),
                numbers.times(result.memory_ratio),
                numbers.times(result.steps_ratio),
                measured.plan.name,
            ]
            for result in [*own, *noise]
        ]
    return table([head, *rows]) if rows else ""


def _arm(result: ArmResult) -> str:
    return "A/A: other seeds, nothing else" if result.arm == A_A else f"`{result.arm}`"


def _reading(result: ArmResult, unit: Unit) -> str:
    """Return how to read an arm's result, in words."""
    name, effect = f"`{result.arm}`", unit.signed(result.effect)
    if result.effect is None:
        return f"{name}: no pair of runs finished, so there is no difference to be shown."
    between = ""
    if result.low is not None and result.high is not None:
        between = f"from {unit.signed(result.low)} to {unit.signed(result.high)}"
    if result.verdict != "can't tell":
        by_interval = f", by its interval anything {between}" if between else ""
        return (
            f"{name} **{result.verdict}** here: {effect} {unit.name}{by_interval}. That holds for "
            "this recipe, data and budget."
        )
    text = f"{name}: *can't tell* is not *no effect*. {result.finished} pairs show {effect} "
    text += unit.name
    if between and (result.low or 0) <= 0 <= (result.high or 0):
        text += f"; by its interval the true difference may be anything {between}, 0 included."
    elif between:
        text += (
            f"; its interval {between} leaves 0 out, but not so clearly that chance is ruled out "
            "by both tests, among so many arms."
        )
    else:
        text += ", without an interval."
    if result.seeds_needed:
        text += (
            f" If that is the true one, about {result.seeds_needed:,} seeds would tell it from "
            "chance with a probability of 80 %."
        )
    return text


def _concerns(note: str, arms: list[PlannedArm], study: Study) -> bool:
    """Tell whether a note is on these arms or on the whole study, not on other arms only."""
    own = {arm.name for arm in arms}
    named = {arm for arm in study.arms if re.search(rf"(?<!\w){re.escape(arm)}(?!\w)", note)}
    # a name may be a part of another one, which is then meant
    meant = {arm for arm in named if not any(arm != other and arm in other for other in named)}
    return not meant or bool(meant & own)


def _conditions(plan: Plan, arms: list[PlannedArm], study: Study, analysis: Analysis) -> str:
    """Return what was trained, on what, how and where, as a list."""
    unit = Unit.of(study)
    direction = "more is better" if study.larger_is_better else "less is better"
    weights = "the last weights" if study.select == "last" else "the best weights in validation"
    runs = [run for run in study.runs if run.kind == "report"]
    machines = sorted({run.machine for run in runs if run.machine})
    threads = sorted({run.threads for run in runs})
    versions = sorted({f"{k} {v}" for run in runs for k, v in run.versions.items()})
    spread = unit.plain(analysis.baseline_spread)
    tuned = ", ".join(f"{factor:g}" for factor in study.tune)
    lines = [
        f"baseline: {_files(plan.base)}; {study.outcome} "
        f"{unit.plain(analysis.baseline_mean)}{' %' if unit.scale == 100 else ''}, with a standard "
        f"deviation of {spread} over seeds",
        *(f"`{arm.name}`: {_files(arm.changes)}" for arm in arms),
        f"data: {_data(study)}; budget: {budget(study)} a run; {len(study.seeds)} seeds",
        f"outcome: {study.outcome} ({direction}) of {weights}",
        f"learning rate: each arm's and the baseline's own is the best of {tuned} times its "
        "own, chosen with other seeds"
        if len(study.tune) > 1
        else "learning rate: not tuned, the same for all unless an arm brings its own",
        f"machine: {'; '.join(machines) or 'unknown'}; threads of torch: "
        f"{', '.join(map(str, threads))}; {', '.join(versions)}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _files(changes: Sequence[str]) -> str:
    """Return files as links from a card, and ``KEY=VALUE`` as it is."""
    shown = [
        f"[`{change}`]({UP}{change})" if (ROOT / change).is_file() else f"`{change}`"
        for change in changes
    ]
    return " and ".join(shown) or "nothing"


def budget(study: Study) -> str:
    """Return a run's length in words.

    Example:
        >>> from types import SimpleNamespace
        >>> [budget(SimpleNamespace(budget=length)) for length in ("3ep", "500", "60s")]
        ['3 epochs', '500 steps', '60 seconds']
    """
    for unit, name in (("ep", "epochs"), ("s", "seconds")):
        if study.budget.endswith(unit):
            return f"{study.budget.removesuffix(unit)} {name}"
    return f"{study.budget} steps"


def _data(study: Study) -> str:
    config: Any = yaml.safe_load(study.configs.get(BASELINE, "")) or {}
    data = config.get("data") or {}
    name = str(data.get("class_path", "unknown")).rpartition(".")[2]
    path = (data.get("init_args") or {}).get("path")
    return f"`{name}`" + (f" of {Path(path).name}" if path else "")
