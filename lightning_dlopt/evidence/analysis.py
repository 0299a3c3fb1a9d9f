"""What a study's runs say about each arm."""

from dataclasses import dataclass
from typing import Literal

from lightning_dlopt.evidence.runs import Study

Verdict = Literal["helps", "hurts", "can't tell"]


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
        low: lower end of the paired t interval at 95 %; None with fewer than two pairs.
        high: its upper end.
        p_t: of the paired t test, two-sided; None where the interval is None.
        p_t_holm: the same by Holm over the study's arms (A/A is none of them).
        p_flip: of the exact sign-flip test, two-sided, a failed run counted as the worst.
        verdict: *helps* or *hurts* if both tests say so (``p_t_holm`` and ``p_flip`` at most
            0.05), else *can't tell*.
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
    """Compare every arm of a study with its baseline."""
    raise NotImplementedError
