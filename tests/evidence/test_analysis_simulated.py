"""Whole studies with planted effects, hundreds of them, through ``analyze``."""

import math
from collections import Counter

import numpy as np
import pytest

from lightning_dlopt.evidence.analysis import analyze
from lightning_dlopt.evidence.runs import A_A, BASELINE
from lightning_dlopt.evidence.statistics import paired_t_power, seeds_needed
from tests.evidence.studies import study_of

STUDIES = 400
#: Standard deviation of an arm's own noise; the difference of two arms has √2 times that.
NOISE = 0.01
SPREAD = NOISE * math.sqrt(2)


def verdicts(
    effects: dict[str, float],
    seeds: int,
    seed: int,
    failing: float = 0.0,
    failing_baseline: float = 0.0,
    larger: bool = True,
) -> list[dict[str, str]]:
    """Return each study's verdicts; ``effects`` in spreads of a pair, more being better."""
    generator = np.random.default_rng(seed)
    results = []
    for _ in range(STUDIES):
        # what a seed does to every arm of its pair
        shared = 0.9 + generator.normal(0, 3 * NOISE, seeds)
        rows = {}
        for arm in (BASELINE, A_A, *effects):
            gain = effects.get(arm, 0.0) * SPREAD * (1 if larger else -1)
            values = (0.9 if arm == A_A else shared) + gain + generator.normal(0, NOISE, seeds)
            chance = failing if arm in effects else failing_baseline
            failed = generator.random(seeds) < chance
            rows[arm] = [None if f else float(v) for f, v in zip(failed, values, strict=True)]
        analysis = analyze(study_of(rows, larger=larger))
        results.append({arm.arm: arm.verdict for arm in analysis.arms})
    return results


def share(results: list[dict[str, str]], arm: str, verdict: str) -> float:
    return Counter(result[arm] for result in results)[verdict] / len(results)


def error(chance: float) -> float:
    return 4 * math.sqrt(chance * (1 - chance) / STUDIES)


@pytest.mark.parametrize("larger", [True, False])
def test_useless_techniques_can_not_be_told(larger: bool) -> None:
    results = verdicts({"a": 0, "b": 0, "c": 0}, seeds=6, seed=1, larger=larger)
    for arm in "abc":
        assert share(results, arm, "can't tell") >= 0.95
    # and not one of them, in nearly all of the studies
    right = [all(result[arm] == "can't tell" for arm in "abc") for result in results]
    assert np.mean(right) >= 0.95


def test_a_useless_technique_beside_useful_ones() -> None:
    results = verdicts({"useless": 0, "good": 4, "bad": -4}, seeds=6, seed=2)
    assert share(results, "useless", "can't tell") >= 0.95
    assert share(results, "good", "helps") >= 0.95
    assert share(results, "bad", "hurts") >= 0.95


@pytest.mark.parametrize("failing", [0.1, 0.5])
def test_useless_techniques_whose_runs_fail_as_the_baselines_do(failing: float) -> None:
    results = verdicts(
        {"a": 0, "b": 0}, seeds=10, seed=3, failing=failing, failing_baseline=failing
    )
    for arm in "ab":
        assert share(results, arm, "can't tell") >= 0.95


def test_useless_techniques_that_fail_never_help() -> None:
    results = verdicts({"a": 0, "b": 0}, seeds=12, seed=4, failing=0.3)
    for arm in "ab":
        assert share(results, arm, "helps") <= 0.01


@pytest.mark.parametrize("larger", [True, False])
def test_an_effect_of_two_spreads_is_found_with_the_seeds_it_needs(larger: bool) -> None:
    seeds = seeds_needed(2 * SPREAD, SPREAD)
    assert seeds == 6
    # the sign-flip test can only agree if all six have one sign
    one_sign = (0.5 * math.erfc(-2 / math.sqrt(2))) ** 6
    chance = min(one_sign, paired_t_power(6, 2, 1))
    assert chance >= 0.8
    found = share(verdicts({"arm": 2}, seeds, seed=5, larger=larger), "arm", "helps")
    assert abs(found - chance) < error(chance)


@pytest.mark.parametrize("ratio", [1.0, 0.7])
def test_smaller_effects_are_found_with_the_seeds_they_need(ratio: float) -> None:
    seeds = seeds_needed(ratio, 1)
    assert seeds is not None
    found = share(verdicts({"arm": -ratio}, seeds, seed=6), "arm", "hurts")
    power = paired_t_power(seeds, ratio, 1)
    assert abs(found - power) < error(power)
