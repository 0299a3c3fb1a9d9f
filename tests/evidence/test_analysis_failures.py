"""A failed run is never dropped, and its arm never gains by it."""

import math
from typing import Any

import numpy as np
import pytest

from lightning_dlopt.evidence.analysis import ArmResult, analyze
from lightning_dlopt.evidence.runs import BASELINE, Study
from tests.evidence.studies import Outcomes, run_of, study_of

NAN = math.nan
BASE = [0.80, 0.82, 0.79, 0.81, 0.83, 0.78, 0.80, 0.81]
BETTER = [value + gain for value, gain in zip(BASE, [5, 4, 5, 6, 5, 4, 5, 6], strict=True)]


def arm_of(study: Study, name: str = "arm") -> ArmResult:
    return next(arm for arm in analyze(study).arms if arm.arm == name)


def compared(arm: Outcomes, base: Outcomes = BASE, larger: bool = True, **others: Any) -> ArmResult:
    """Return the result, with all outcomes turned for a metric whose smaller values are better."""
    sign = 1 if larger else -1
    rows = {BASELINE: base, "arm": arm, **others}
    turned = {
        name: [None if value is None else sign * value for value in row]
        for name, row in rows.items()
    }
    return arm_of(study_of(turned, larger=larger))


@pytest.mark.parametrize("larger", [True, False])
@pytest.mark.parametrize("failed", [None, NAN, math.inf, -math.inf])
def test_one_failure_spoils_a_clear_gain(failed: float | None, larger: bool) -> None:
    assert compared(BETTER, larger=larger).verdict == "helps"
    arm = compared([*BETTER[:7], failed], larger=larger)
    assert (arm.pairs, arm.finished, sum(arm.failures.values())) == (8, 7, 1)
    assert arm.effect == pytest.approx((1 if larger else -1) * np.mean([5, 4, 5, 6, 5, 4, 5]))
    assert arm.p_t is not None
    assert arm.p_t < 0.001
    assert arm.verdict == "can't tell"


def test_a_failure_counts_as_worse_than_every_outcome() -> None:
    base, own = [1.0, 2.0, 3.0, 4.0], [6.0, 7.0, 8.0, None]
    # the failed run counts as the worst outcome less a deviation: -1.64
    assert 1.0 - np.std([1, 2, 3, 4, 6, 7, 8], ddof=1) == pytest.approx(-1.64, abs=0.005)
    # differences 5, 5, 5, -5.64: as far out as 9.36 are 2 patterns of 20.64, 6 of 10.64 and 2 of
    # 9.36; were it only the worst outcome (5, 5, 5, -3: 12), there would be 4
    assert compared(own, base).p_flip == 10 / 16
    # another arm's bad outcome makes it worse: the failure outweighs the rest in every pattern
    assert compared(own, base, other=[-10.0, 0.0, 0.0, 0.0]).p_flip == 1


def test_both_failed_is_no_difference() -> None:
    own, base = [*BETTER[:6], None, NAN], [*BASE[:6], NAN, None]
    arm = compared(own, base)
    assert (arm.finished, arm.baseline_failures, sum(arm.failures.values())) == (6, 2, 2)
    # two differences of 0 double all patterns alike
    assert arm.p_flip == 2 / 2**6
    assert arm.verdict == "helps"


@pytest.mark.parametrize("larger", [True, False])
def test_an_arm_that_fails_in_every_pair_hurts(larger: bool) -> None:
    arm = compared([None] * 6, BASE[:6], larger=larger, other=BETTER[:6], third=[None] * 6)
    assert arm.verdict == "hurts"
    assert arm.failures == {"crashed": 6}
    assert arm.mean is arm.effect is arm.low is arm.high is arm.p_t is arm.p_t_holm is None
    assert arm.p_flip == 2 / 2**6
    # five can't be significant
    assert compared([None] * 5, BASE[:5]).verdict == "can't tell"
    # and as all outcomes are equal, worse must be worse all the same
    assert compared([None] * 6, [0.5] * 6).verdict == "hurts"
    assert compared([None] * 6, [0.0] * 6).verdict == "hurts"


def test_an_arm_that_fails_in_most_pairs_hurts() -> None:
    # in two pairs of eight it finished, and was better: survivors
    arm = compared([0.804, 0.825, *[NAN] * 6])
    assert arm.effect is not None
    assert arm.effect > 0
    assert arm.verdict == "hurts"
    assert compared([0.804, 0.825, 0.793, *[NAN] * 5]).verdict == "can't tell"


@pytest.mark.parametrize("larger", [True, False])
def test_a_baseline_that_fails_in_every_pair(larger: bool) -> None:
    arm = compared(BETTER[:6], [None] * 6, larger=larger)
    assert (arm.verdict, arm.baseline_failures, arm.finished) == ("helps", 6, 0)
    # among two arms, Holm asks for more pairs
    assert compared(BETTER[:6], [None] * 6, other=BETTER[:6]).verdict == "can't tell"
    assert compared(BETTER[:7], [None] * 7, other=BETTER[:7]).verdict == "helps"


def test_failing_less_is_no_help_if_what_finished_is_worse() -> None:
    base = [0.801, 0.821, *[None] * 6]
    arm = compared(BASE, base)
    assert arm.p_flip == 8 / 2**8
    assert arm.verdict == "can't tell"
    assert compared([value + 0.002 for value in BASE], base).verdict == "helps"


def test_everything_failed() -> None:
    study = study_of({BASELINE: [None] * 6, "arm": [NAN] * 6})
    arm = arm_of(study)
    assert (arm.verdict, arm.p_flip) == ("can't tell", 1)
    analysis = analyze(study)
    assert analysis.baseline_mean is analysis.baseline_spread is None


def test_failures_are_told_by_their_way() -> None:
    study = study_of({BASELINE: BASE, "arm": [None, NAN, *BASE[2:]]})
    for i, run in enumerate(study.runs):
        if run.arm == "arm" and run.pair in (2, 3, 4):
            # finished, but without an outcome; with one that isn't finite; killed
            metrics = {2: {"metric": 1.0}, 3: {"test": math.inf}, 4: {}}[run.pair]
            status = "killed" if run.pair == 4 else "finished"
            study.runs[i] = run_of("arm", run.pair, 0.0, status=status, metrics=metrics)
    arm = arm_of(study)
    assert arm.failures == {"crashed": 1, "diverged": 2, "no test": 1, "killed": 1}
    assert (arm.pairs, arm.finished) == (8, 3)
    assert arm.mean == pytest.approx(np.mean(BASE[5:]))


def test_notes_tell_of_failures() -> None:
    study = study_of({BASELINE: [*BASE[:7], None], "arm": [None, NAN, *BETTER[2:]]})
    first, second = analyze(study).notes
    assert "Runs of the baseline failed (crashed 1 of 8)" in first
    assert "Runs of arm failed (crashed 1, diverged 1 of 8)" in second
    assert "5 pairs that finished, and it can't be said to help" in second
