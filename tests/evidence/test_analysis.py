import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lightning_dlopt.evidence.analysis import Analysis, ArmResult, analyze
from lightning_dlopt.evidence.runs import A_A, BASELINE, Study
from lightning_dlopt.evidence.statistics import seeds_needed
from tests.evidence.studies import Outcomes, curve_of, run_of, study_of

BASE = [0.80, 0.82, 0.79, 0.81, 0.83, 0.78]
BETTER = [0.85, 0.86, 0.85, 0.85, 0.88, 0.84]
LITTLE = [0.81, 0.81, 0.80, 0.80, 0.84, 0.79]


def arm_of(study: Study, name: str = "arm") -> ArmResult:
    return next(arm for arm in analyze(study).arms if arm.arm == name)


def compared(arm: Outcomes, base: Outcomes = BASE, **changes: Any) -> ArmResult:
    return arm_of(study_of({BASELINE: base, "arm": arm}, **changes))


def notes(analysis: Analysis) -> str:
    return "\n".join(analysis.notes)


def test_an_arm_that_is_better_in_every_pair() -> None:
    study = study_of({BASELINE: BASE, "arm": BETTER})
    analysis = analyze(study)
    (arm,) = analysis.arms
    test = stats.ttest_rel(BETTER, BASE)
    assert (arm.pairs, arm.finished, arm.failures, arm.baseline_failures) == (6, 6, {}, 0)
    assert arm.mean == pytest.approx(np.mean(BETTER))
    assert arm.effect == pytest.approx(np.mean(BETTER) - np.mean(BASE))
    assert (arm.low, arm.high) == pytest.approx(tuple(test.confidence_interval()))
    assert arm.p_t == arm.p_t_holm == pytest.approx(test.pvalue)
    assert arm.p_flip == 2 / 2**6
    assert (arm.verdict, arm.seeds_needed) == ("helps", None)
    assert analysis.baseline_mean == pytest.approx(np.mean(BASE))
    assert analysis.baseline_spread == pytest.approx(np.std(BASE, ddof=1))
    assert analysis.notes == []


@pytest.mark.parametrize("larger", [True, False])
@pytest.mark.parametrize("swapped", [True, False])
def test_the_direction_of_the_metric_decides(larger: bool, swapped: bool) -> None:
    own, base = (BASE, BETTER) if swapped else (BETTER, BASE)
    arm = compared(own, base, larger=larger)
    assert arm.effect == pytest.approx((-1 if swapped else 1) * 0.05)
    assert arm.verdict == ("helps" if larger != swapped else "hurts")


def test_a_little_better_says_how_many_seeds_would_tell() -> None:
    arm = compared(LITTLE)
    differences = np.subtract(LITTLE, BASE)
    assert arm.verdict == "can't tell"
    assert arm.seeds_needed == seeds_needed(np.mean(differences), np.std(differences, ddof=1))
    # among three arms, the level is Holm's for the least clear of them
    study = study_of({BASELINE: BASE, A_A: LITTLE, "a": LITTLE, "b": BETTER, "c": LITTLE})
    assert arm_of(study, "c").seeds_needed == seeds_needed(
        np.mean(differences), np.std(differences, ddof=1), level=0.05 / 3
    )
    assert arm_of(study, "b").seeds_needed is arm_of(study, A_A).seeds_needed is None


def test_five_pairs_are_never_enough() -> None:
    study = study_of({BASELINE: BASE[:5], "arm": [value + 10 for value in BETTER[:5]]})
    arm = arm_of(study)
    assert arm.p_t is not None
    assert arm.p_t < 1e-6
    assert (arm.p_flip, arm.verdict) == (2 / 2**5, "can't tell")
    assert "fewer than 6 seeds" in notes(analyze(study))
    assert "0.0625" in notes(analyze(study))


def test_holm_is_over_the_arms_without_a_a() -> None:
    rng = np.random.default_rng(0)
    rows = {name: (np.add(BASE, rng.normal(0.03, 0.02, 6))).tolist() for name in "abc"}
    analysis = analyze(study_of({BASELINE: BASE, **rows, A_A: BETTER}))
    assert [arm.arm for arm in analysis.arms] == [A_A, "a", "b", "c"]
    p_values = [arm.p_t for arm in analysis.arms[1:]]
    assert p_values == pytest.approx([stats.ttest_rel(rows[name], BASE).pvalue for name in "abc"])
    smallest = min(range(3), key=lambda i: p_values[i] or 0)
    assert analysis.arms[1 + smallest].p_t_holm == pytest.approx(3 * p_values[smallest])
    assert analysis.arms[0].p_t_holm is None


def test_both_tests_must_agree() -> None:
    # significant by t alone, but one of six goes the other way
    flips = np.add(BASE, [0.05, 0.06, 0.05, 0.04, 0.05, -0.001]).tolist()
    arm = compared(flips)
    assert arm.p_t is not None
    assert arm.p_flip is not None
    assert arm.p_t <= 0.05 < arm.p_flip
    assert arm.verdict == "can't tell"
    # by sign alone, but with one large difference
    wild = np.add(BASE, [0.01, 0.9, 0.01, 0.01, 0.01, 0.01]).tolist()
    arm = compared(wild)
    assert arm.p_t is not None
    assert arm.p_t > 0.05
    assert (arm.p_flip, arm.verdict) == (2 / 2**6, "can't tell")
    assert compared(BASE, wild).verdict == "can't tell"


def test_a_a_that_differs_is_noted_and_never_judged() -> None:
    analysis = analyze(study_of({BASELINE: BASE, "arm": LITTLE, A_A: BETTER}))
    assert analysis.arms[0].verdict == "can't tell"
    assert "A/A, the baseline with other seeds, differs" in notes(analysis)
    assert "A/A" not in notes(analyze(study_of({BASELINE: BASE, A_A: LITTLE})))


@pytest.mark.parametrize("larger", [True, False])
def test_an_arm_that_changes_nothing(larger: bool) -> None:
    study = study_of({BASELINE: BASE, "arm": BASE}, larger=larger)
    arm = arm_of(study)
    assert (arm.effect, arm.low, arm.high, arm.p_t, arm.p_flip) == (0, 0, 0, 1, 1)
    assert (arm.verdict, arm.seeds_needed) == ("can't tell", None)
    assert "arm changes nothing measurable" in notes(analyze(study))


def test_an_arm_that_changes_no_more_than_float32_rounds() -> None:
    rounded = [float(np.float32(value)) for value in BASE]
    assert rounded != BASE
    study = study_of({BASELINE: BASE, "arm": rounded})
    assert arm_of(study).effect == 0
    assert "changes nothing measurable" in notes(analyze(study))


@pytest.mark.parametrize("count", [2, 6])
def test_the_same_difference_in_every_pair(count: int) -> None:
    base = BASE[:count]
    own = [float(np.float32(value + 0.01)) for value in base]
    study = study_of({BASELINE: base, "arm": own})
    arm = arm_of(study)
    assert arm.effect == pytest.approx(0.01, abs=1e-7)
    assert arm.low is arm.high is arm.seeds_needed is None
    assert arm.p_t == arm.p_flip == 2 / 2**count
    assert arm.verdict == ("helps" if count == 6 else "can't tell")
    assert "same amount in every pair" in notes(analyze(study))


def test_a_huge_outcome_of_one_arm_leaves_the_others_as_they_are() -> None:
    study = study_of({BASELINE: BASE, "arm": BETTER, "wild": [-1e9, *BASE[1:]]})
    alone = compared(BETTER)
    together = arm_of(study)
    assert replace(together, p_t_holm=alone.p_t_holm) == alone
    assert together.verdict == "helps"


def test_times_and_sizes_are_ratios_within_pairs() -> None:
    study = study_of({BASELINE: BASE[:3], "arm": BETTER[:3]})
    for i, run in enumerate(study.runs):
        factor = [1, 1, 1, 1.5, 3.0, 2.0][i]
        scale = [10.0, 20.0, 30.0][run.pair] * factor
        study.runs[i] = replace(
            run, step_ms=scale, seconds=2 * scale, memory_mb=3 * scale, steps=int(4 * scale)
        )
    arm = arm_of(study)
    assert (arm.step_ratio, arm.time_ratio, arm.memory_ratio, arm.steps_ratio) == (2, 2, 2, 2)
    study.runs[5] = replace(study.runs[5], step_ms=None, memory_mb=None)
    study.runs[0] = replace(study.runs[0], step_ms=None)
    arm = arm_of(study)
    assert (arm.step_ratio, arm.memory_ratio) == (3, 2.25)
    assert compared(BETTER).step_ratio is None


def timed(own: list[Any], base: list[Any], seconds: float, **changes: Any) -> float | None:
    runs = [
        run_of(BASELINE, 0, 0.5, curve=curve_of(*base), seconds=seconds),
        run_of("arm", 0, 0.9, curve=curve_of(*own), seconds=100.0),
    ]
    return arm_of(study_of({BASELINE: [0.5], "arm": [0.9]}, runs=runs, **changes)).equal_time


def test_equal_time_is_at_the_baselines_end() -> None:
    base = [(10, 1.0, 0.4), (20, 2.0, 0.6)]
    slow = [(10, 1.8, 0.7), (20, 3.6, 0.9)]
    # 0.2 of the 1.8 seconds between its validations, in which it gains 0.2
    between = 0.7 + 0.2 * 0.2 / 1.8
    assert timed(slow, base, 2.0) == pytest.approx(between - 0.6)
    # exactly then counts; faster, its end; without a validation by then, nothing
    assert timed([(10, 2.0, 0.8), (20, 4.0, 0.9)], base, 2.0) == pytest.approx(0.8 - 0.6)
    assert timed([(10, 0.5, 0.7), (20, 1.0, 0.9)], base, 2.0) == pytest.approx(0.9 - 0.6)
    assert timed([(10, 2.5, 0.7)], base, 2.0) is None
    # without a curve of the baseline's, what it logged at the end
    assert timed(slow, [], 2.0) == pytest.approx(between - 0.5)


def test_rate_factors_at_the_edge() -> None:
    def tuned(factor: float, tune: list[float]) -> ArmResult:
        study = study_of({BASELINE: BASE, "arm": BETTER}, tune=tune)
        runs = [replace(run, rate_factor=factor) for run in study.runs if run.arm == "arm"]
        return arm_of(replace(study, runs=[*study.runs[:6], *runs]))

    for factor, edge in ((0.3, True), (1.0, False), (3.0, True)):
        arm = tuned(factor, [1.0, 0.3, 3.0])
        assert (arm.rate_factor, arm.rate_at_edge) == (factor, edge)
    assert not tuned(1.0, []).rate_at_edge
    assert not tuned(1.0, [1.0]).rate_at_edge


@pytest.mark.parametrize("larger", [True, False])
@pytest.mark.parametrize(("late", "flagged"), [(0.2, True), (0.02, False), (-0.2, False)])
def test_a_baseline_that_is_still_improving(larger: bool, late: float, flagged: bool) -> None:
    sign = 1 if larger else -1
    runs = []
    for pair, end in enumerate([0.5, 0.6, 0.55, 0.45]):
        # of 60 steps, the last fifth begins at 48, between two validations
        points = [(20, 1.0, -5.0), (40, 2.0, end - late * 5 / 3), (60, 3.0, end)]
        curve = curve_of(*((step, at, sign * value) for step, at, value in points))
        runs.append(run_of(BASELINE, pair, end, curve=curve))
    study = study_of({BASELINE: [None] * 4}, larger=larger, runs=runs)
    gain = analyze(study).still_improving
    assert gain == (pytest.approx(late) if flagged else None)
    short = [replace(run, curve=run.curve[-1:]) for run in runs]
    assert analyze(replace(study, runs=short)).still_improving is None
    # no validation before the last fifth: what it gained since then isn't known
    early = curve_of((55, 2.0, sign * -5.0))
    short = [replace(run, curve=[*early, *run.curve[-1:]]) for run in runs]
    assert analyze(replace(study, runs=short)).still_improving is None


def test_tuning_runs_do_not_count() -> None:
    study = study_of({BASELINE: BASE, "arm": BETTER})
    extra = [run_of("arm", 0, -9.0, kind="tune"), run_of(BASELINE, 1, math.nan, kind="calibrate")]
    assert analyze(replace(study, runs=[*study.runs, *extra])) == analyze(study)
