"""What a reader of a comparison must not miss, in sentences."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lightning_dlopt.evidence.pairs import Pairs, equal_fingerprints, failures_of
from lightning_dlopt.evidence.runs import A_A, BASELINE, Run, Study
from lightning_dlopt.evidence.statistics import FEWEST_PAIRS, smallest_p

if TYPE_CHECKING:
    from lightning_dlopt.evidence.analysis import ArmResult


def notes_of(study: Study, arms: "list[ArmResult]", pairs: Mapping[str, Pairs]) -> list[str]:
    """Return the notes of a study, those on its whole first."""
    return [
        *_few_pairs(study),
        *_incomplete(study, arms),
        *_failures(study, arms, pairs),
        *_noise(arms),
        *_nothing_changed(arms, pairs),
        *_told_by_runs(study, arms),
        *_other_data(arms, pairs),
        *_rate(study),
        *_mixed(study),
    ]


def _few_pairs(study: Study) -> list[str]:
    seeds = len(study.seeds)
    if seeds >= FEWEST_PAIRS:
        return []
    least = f" (the smallest p that {seeds} can give is {smallest_p(seeds):g})" if seeds else ""
    return [
        f"With fewer than {FEWEST_PAIRS} seeds nothing can be significant at 5 %{least}: "
        "every arm is can't tell."
    ]


def _incomplete(study: Study, arms: "list[ArmResult]") -> list[str]:
    planned = len(study.seeds)
    lacking = [f"{arm.arm} has {arm.pairs}" for arm in arms if arm.pairs < planned]
    if not lacking:
        return []
    few = any(arm.pairs < FEWEST_PAIRS for arm in arms) and planned >= FEWEST_PAIRS
    return [
        f"The study isn't complete: of {planned} pairs, {', '.join(lacking)}."
        + (f" With fewer than {FEWEST_PAIRS}, nothing can be significant." if few else "")
    ]


def _told_by_runs(study: Study, arms: "list[ArmResult]") -> list[str]:
    """Return what runs told that finished all the same, such as a technique without effect."""
    told: dict[str, list[str]] = {}
    for arm in [BASELINE, *(arm.arm for arm in arms)]:
        for run in study.reported(arm).values():
            if run.status == "finished" and run.why:
                told.setdefault(f"{arm}: {run.why}", []).append(str(run.seed))
    return [f"{text} (seed {', '.join(seeds)})" for text, seeds in told.items()]


def _failures(study: Study, arms: "list[ArmResult]", pairs: Mapping[str, Pairs]) -> list[str]:
    notes = []
    if failed := failures_of(study, BASELINE):
        notes.append(
            f"Runs of the baseline failed ({_counts(failed)} of {len(study.reported(BASELINE))}): "
            "mend it before anything is read from the comparison."
        )
    for arm in arms:
        if arm.failures:
            more = pairs[arm.arm].only_arm_failed > pairs[arm.arm].only_baseline_failed
            notes.append(
                f"Runs of {arm.arm} failed ({_counts(arm.failures)} of "
                f"{len(study.reported(arm.arm))}): its effect and interval are of the "
                f"{arm.finished} pairs that finished"
                + (", and it can't be said to help." if more and arm.arm != A_A else ".")
            )
    return notes


def _counts(failures: Mapping[str, int]) -> str:
    return ", ".join(f"{way} {count}" for way, count in failures.items())


def _noise(arms: "list[ArmResult]") -> list[str]:
    return [
        f"A/A, the baseline with other seeds, differs from the baseline (p = {arm.p_t:.2g}). "
        "Nothing was changed in it: that happens by chance in one study of twenty, or the runs "
        "vary by more than their seeds. Trust no effect that isn't clearly larger."
        for arm in arms
        if arm.arm == A_A and arm.p_t is not None and arm.p_t <= 0.05
    ]


def _nothing_changed(arms: "list[ArmResult]", pairs: Mapping[str, Pairs]) -> list[str]:
    notes = []
    for arm in arms:
        if arm.finished < 2 or arm.arm == A_A:
            continue
        differences = pairs[arm.arm].differences()
        if not any(differences):
            notes.append(
                f"{arm.arm} changes nothing measurable: all {arm.finished} finished pairs have "
                "equal outcomes."
            )
        elif len(set(differences)) == 1:
            notes.append(
                f"{arm.arm} differs from the baseline by the same amount in every pair: there is "
                "no interval, and the sign-flip test judges it alone."
            )
    return notes


def _other_data(arms: "list[ArmResult]", pairs: Mapping[str, Pairs]) -> list[str]:
    notes = []
    for arm in arms:
        if arm.arm == A_A:
            # other seeds make other weights and batches, and may make another split
            continue
        runs = pairs[arm.arm].runs
        if not equal_fingerprints((run.held_out, base.held_out) for run, base in runs):
            notes.append(
                f"{arm.arm} was validated on other data than the baseline: their outcomes can't "
                "be compared."
            )
        elif not arm.same_batches:
            notes.append(
                f"{arm.arm} saw other training batches than the baseline, on the same data: that "
                "is part of its effect, and its pairs share less of their noise."
            )
        if not arm.same_weights:
            notes.append(
                f"{arm.arm} began with other weights than the baseline: its pairs share less of "
                "their noise."
            )
    return notes


def _rate(study: Study) -> list[str]:
    factors = {run.rate_factor for run in study.reported(BASELINE).values()}
    tried = set(study.tune)
    return [
        f"The baseline's learning rate (times {factor:g}) lies at the edge of those tried: it may "
        "be better still beyond, and the arms seem better than they are."
        for factor in sorted(factors)
        if len(tried) > 1 and factor in (min(tried), max(tried))
    ]


def _mixed(study: Study) -> list[str]:
    runs = [run for arm in (BASELINE, A_A, *study.arms) for run in study.reported(arm).values()]
    notes = []
    machines = _distinct(runs, lambda run: run.machine)
    if len(machines) > 1:
        notes.append(
            f"The runs come from different machines ({', '.join(machines)}): times and memory "
            "can't be compared."
        )
    for package in sorted({name for run in runs for name in run.versions}):
        versions = sorted({run.versions[package] for run in runs if package in run.versions})
        if len(versions) > 1:
            notes.append(f"The runs mix versions of {package} ({', '.join(versions)}).")
    threads = _distinct(runs, lambda run: str(run.threads))
    if len(threads) > 1:
        notes.append(
            f"The runs had different numbers of threads ({', '.join(threads)}): times can't be "
            "compared."
        )
    return notes


def _distinct(runs: list[Run], text: Callable[[Run], str]) -> list[str]:
    """Return the different texts of the runs, in order; an empty one isn't known."""
    return sorted({text(run) for run in runs} - {""})
