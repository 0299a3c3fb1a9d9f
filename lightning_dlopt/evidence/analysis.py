"""What a study's runs say about each arm."""

from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Literal

from lightning_dlopt.evidence.notes import notes_of
from lightning_dlopt.evidence.pairs import (
    Pairs,
    equal_fingerprints,
    failures_of,
    late_gain,
    value_of,
    worst_of,
)
from lightning_dlopt.evidence.runs import A_A, BASELINE, Study
from lightning_dlopt.evidence.statistics import (
    holm,
    paired_t_interval,
    paired_t_p,
    seeds_needed,
    sign_flip_p,
    sign_p,
)

Verdict = Literal["helps", "hurts", "can't tell"]

#: Of significance, and of the share of false findings that a study may make.
LEVEL = 0.05


@dataclass(frozen=True)
class ArmResult:
    """An arm against the baseline.

    Differences are the arm's minus the baseline's, pair by pair, in the outcome's unit; ``better``
    turns them so that more is better whatever the metric's direction.

    Attributes:
        arm: its name.
        pairs: how many pairs have ended in both arms.
        finished: in how many of them both runs finished.
        failures: how many of the arm's runs failed, and in which way.
        baseline_failures: how many of the baseline's did.
        mean: mean outcome of the arm's finished runs; None if there are none.
        effect: mean difference of the finished pairs; None if there are none.
        low: lower end of the paired t interval at 95 %; None with fewer than two finished pairs,
            and where all differ by the same amount: that says nothing of the spread.
        high: its upper end.
        p_t: of the paired t test, two-sided; None with fewer than two finished pairs. Where all
            differ by the same amount, it is the sign-flip test's.
        p_t_holm: the same by Holm over the study's arms; None for A/A, which is none of them.
        p_flip: of the exact sign-flip test, two-sided, a failed run counted as the worst.
        verdict: *helps* or *hurts* if both tests say so (``p_t_holm`` and ``p_flip`` at most
            0.05), else *can't tell*, and always so for A/A; of failures see :func:`analyze`.
        seeds_needed: how many pairs would give the observed effect a chance of 80 % to be told,
            if it is the true one; None where that can't be said or isn't needed.
        equal_time: mean difference when the arm is stopped at the time its baseline took.
        step_ratio: median over pairs of the arm's step time in the baseline's.
        time_ratio: the same of the whole training time.
        memory_ratio: the same of the peak memory.
        steps_ratio: the same of the number of optimizer steps.
        rate_factor: the chosen factor of the learning rate.
        rate_at_edge: whether that was the smallest or the largest of those tried.
        same_weights: whether every pair began with equal weights.
        same_batches: whether every pair saw equal batches in equal order.
    """

    arm: str
    pairs: int
    finished: int
    failures: dict[str, int]
    baseline_failures: int
    mean: float | None
    effect: float | None
    low: float | None
    high: float | None
    p_t: float | None
    p_t_holm: float | None
    p_flip: float | None
    verdict: Verdict
    seeds_needed: int | None
    equal_time: float | None
    step_ratio: float | None
    time_ratio: float | None
    memory_ratio: float | None
    steps_ratio: float | None
    rate_factor: float
    rate_at_edge: bool
    same_weights: bool
    same_batches: bool


@dataclass(frozen=True)
class Analysis:
    """All arms of a study, A/A first, and what must be known to read them.

    Attributes:
        arms: in the study's order.
        baseline_mean: mean outcome of the baseline's finished runs.
        baseline_spread: their standard deviation over seeds.
        still_improving: mean gain of the baseline's metric over the last fifth of the run, if it
            is above its standard deviation over seeds; else None.
        notes: sentences that the reader must not miss.
    """

    arms: list[ArmResult]
    baseline_mean: float | None
    baseline_spread: float | None
    still_improving: float | None
    notes: list[str]


def analyze(study: Study) -> Analysis:
    """Compare every arm of a study with its baseline.

    An arm *helps* or *hurts* if both of two tests say so: the paired t test of the finished pairs,
    adjusted by Holm over the arms (A/A is none of them), and the exact sign-flip test of all
    pairs, where a failed run counts as worse than every outcome of the study. The sign-flip test
    can't say so with fewer than 6 pairs. An arm that failed more often than the baseline never
    *helps*.

    The finished pairs are survivors where many runs failed, so failures are judged by themselves
    too, by the sign test on the pairs in which only one of both failed, in the t test's stead:
    an arm *hurts* if it failed significantly more often. It *helps* if the baseline did, by Holm
    over the arms, and if what finished isn't worse. As the sign-flip test must agree in every
    case, the chance that a useless arm is told from the baseline stays at 5 % or below.
    """
    worst = worst_of(study)
    names = ([A_A] if study.reported(A_A) else []) + study.arms
    pairs = {name: Pairs.of(study, name) for name in names}
    judged = [name for name in names if name != A_A]
    p_t = {name: _t_p(pairs[name]) for name in names}
    p_t_holm = dict(zip(judged, holm([p_t[name] for name in judged]), strict=True))
    p_failed = {
        name: sign_p(pairs[name].only_arm_failed, pairs[name].only_baseline_failed)
        for name in judged
    }
    p_failed_holm = dict(zip(judged, holm([p_failed[name] for name in judged]), strict=True))
    # the level that the least significant of all findings must reach in Holm's method
    level = LEVEL / max(1, sum(p_t[name] is not None for name in judged))
    arms = []
    for name in names:
        result = _measure(study, name, pairs[name], worst)
        result = replace(result, p_t=p_t[name], p_t_holm=p_t_holm.get(name))
        if name != A_A:
            verdict = _judge(
                pairs[name],
                better=1 if study.larger_is_better else -1,
                worst=worst,
                tests=(p_t_holm[name], p_failed[name], p_failed_holm[name], result.p_flip),
            )
            result = replace(result, verdict=verdict)
            if verdict == "can't tell":
                result = replace(result, seeds_needed=_seeds_needed(pairs[name], level))
        arms.append(result)
    values = [
        value
        for run in study.reported(BASELINE).values()
        if (value := value_of(study, run)) is not None
    ]
    return Analysis(
        arms=arms,
        baseline_mean=fmean(values) if values else None,
        baseline_spread=stdev(values) if len(values) > 1 else None,
        still_improving=late_gain(study),
        notes=notes_of(study, arms, pairs),
    )


def _t_p(pairs: Pairs) -> float | None:
    return paired_t_p(pairs.differences()) if len(pairs.finished) > 1 else None


def _judge(
    pairs: Pairs,
    better: int,
    worst: float,
    tests: tuple[float | None, float, float | None, float | None],
) -> Verdict:
    t_holm, failed, failed_holm, flip = tests
    if not _significant(flip):
        return "can't tell"
    # what each test leans to, more being better
    all_pairs = better * fmean(pairs.differences_with_failures(worst)[0])
    finished = better * fmean(pairs.differences()) if pairs.finished else 0.0
    more_failures = pairs.only_arm_failed - pairs.only_baseline_failed
    if all_pairs < 0:
        by_t = finished < 0 and _significant(t_holm)
        return "hurts" if by_t or (more_failures > 0 and _significant(failed)) else "can't tell"
    by_t = finished > 0 and _significant(t_holm) and more_failures <= 0
    by_failures = finished >= 0 and _significant(failed_holm) and more_failures < 0
    return "helps" if by_t or by_failures else "can't tell"


def _significant(p: float | None) -> bool:
    return p is not None and p <= LEVEL


def _seeds_needed(pairs: Pairs, level: float) -> int | None:
    if len(pairs.finished) < 2:
        return None
    differences = pairs.differences()
    spread = stdev(differences)
    return seeds_needed(fmean(differences), spread, level=level) if spread > 0 else None


def _measure(study: Study, name: str, pairs: Pairs, worst: float) -> ArmResult:
    """Return all of an arm's result that doesn't depend on the other arms."""
    own, base = study.reported(name), study.reported(BASELINE)
    outcomes = [value for run in own.values() if (value := value_of(study, run)) is not None]
    differences = pairs.differences() if pairs.finished else []
    low = high = None
    # nonzero differences without any spread would make an interval without any width
    if len(differences) > 1 and (len(set(differences)) > 1 or not any(differences)):
        _, low, high = paired_t_interval(differences)
    p_flip = None
    if len(pairs.runs) > 1:
        with_failures, rounding = pairs.differences_with_failures(worst)
        p_flip = sign_flip_p(with_failures, rounding)
    factors = [run.rate_factor for run in own.values()]
    factor = factors[0] if factors else 1.0
    tried = set(study.tune)
    return ArmResult(
        arm=name,
        pairs=len(pairs.runs),
        finished=len(pairs.finished),
        failures=failures_of(study, name),
        baseline_failures=sum(value_of(study, run) is None for run in base.values()),
        mean=fmean(outcomes) if outcomes else None,
        effect=fmean(differences) if differences else None,
        low=low,
        high=high,
        p_t=None,
        p_t_holm=None,
        p_flip=p_flip,
        verdict="can't tell",
        seeds_needed=None,
        equal_time=pairs.equal_time(study.metric),
        step_ratio=pairs.ratio(lambda run: run.step_ms),
        time_ratio=pairs.ratio(lambda run: run.seconds),
        memory_ratio=pairs.ratio(lambda run: run.memory_mb),
        steps_ratio=pairs.ratio(lambda run: run.steps),
        rate_factor=factor,
        rate_at_edge=len(tried) > 1 and factor in (min(tried), max(tried)),
        same_weights=equal_fingerprints((run.weights, other.weights) for run, other in pairs.runs),
        # a failed run may not have come to all of the batches
        same_batches=equal_fingerprints(
            (run.batches, other.batches) for run, other in pairs.finished_runs
        ),
    )
