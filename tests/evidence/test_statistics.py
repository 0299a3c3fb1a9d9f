import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lightning_dlopt.core import ArgumentError, ArgumentTypeError
from lightning_dlopt.evidence import statistics
from lightning_dlopt.evidence.statistics import (
    holm,
    paired_t_interval,
    paired_t_p,
    paired_t_power,
    seeds_needed,
    sign_flip_p,
    sign_p,
    smallest_p,
)


def normal(count: int, shift: float = 0.0, seed: int = 0) -> list[float]:
    return [float(value) for value in np.random.default_rng(seed).normal(shift, 1, count)]


def mean_of(values: Any, axis: int) -> Any:
    return np.mean(values, axis=axis)


@pytest.mark.parametrize("count", [2, 3, 6, 25])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_interval_is_scipys(count: int, level: float) -> None:
    values = normal(count, 0.5)
    interval = stats.ttest_1samp(values, 0).confidence_interval(level)
    expected = (np.mean(values), interval.low, interval.high)
    assert paired_t_interval(values, level) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [2, 3, 6, 25])
def test_the_t_test_is_scipys_of_pairs(count: int) -> None:
    own, base = normal(count, 1.0, seed=1), normal(count, seed=2)
    differences = [a - b for a, b in zip(own, base, strict=True)]
    expected = stats.ttest_rel(own, base).pvalue
    assert paired_t_p(differences) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("value", [0.25, -3.0, 0.1 + 0.2])
def test_equal_differences_are_judged_by_their_number(value: float) -> None:
    assert paired_t_p([value] * 6) == 2 / 2**6
    assert paired_t_p([0.3, 0.1 + 0.2, 0.3]) == 2 / 2**3
    assert paired_t_interval([value] * 6) == pytest.approx((value, value, value))


def test_differences_of_zero_tell_nothing() -> None:
    assert paired_t_p([0.0, 0.0, 0.0]) == 1
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1
    assert paired_t_interval([0.0, 0.0]) == (0, 0, 0)


@pytest.mark.parametrize("count", [2, 3, 6, 9, 12])
@pytest.mark.parametrize("shift", [0.0, -0.8, 2.0])
def test_the_sign_flip_test_is_scipys_permutation_test(count: int, shift: float) -> None:
    values = normal(count, shift, seed=count)
    expected = stats.permutation_test(
        (values,), mean_of, permutation_type="samples", n_resamples=math.inf
    )
    assert len(expected.null_distribution) == 2**count
    assert sign_flip_p(values) == pytest.approx(expected.pvalue, rel=1e-12)


@pytest.mark.parametrize("count", range(2, 10))
def test_ties_are_counted_as_whole_numbers_say(count: int) -> None:
    # of tenths, sums that are equal differ in their last digit
    whole = [int(x) for x in np.random.default_rng(count).integers(-4, 7, count)]
    sums = [
        sum(sign * value for sign, value in zip(signs, whole, strict=True))
        for signs in itertools.product((-1, 1), repeat=count)
    ]
    expected = sum(abs(total) >= abs(sum(whole)) for total in sums) / 2**count
    assert sign_flip_p([value / 10 for value in whole]) == expected
    assert sign_flip_p([-value / 10 for value in whole]) == expected


def test_rounding_makes_ties() -> None:
    # 1 + 2 = 3, but for what float32 left of them
    values = [1.0, 2.0, 3.0 + 1e-7, -3.0]
    assert sign_flip_p(values, rounding=1e-6) > sign_flip_p(values)
    exact = sign_flip_p([1.0, 2.0, 3.0, -3.0])
    assert sign_flip_p(values, rounding=1e-6) == exact


def test_many_differences_are_counted_exactly() -> None:
    values = normal(20, 0.45, seed=4)
    left, right = (
        np.array(list(itertools.product((-1, 1), repeat=10))) @ np.array(half)
        for half in (values[:10], values[10:])
    )
    sums = left[:, None] + right[None, :]
    assert sign_flip_p(values) == np.mean(np.abs(sums) >= abs(sum(values)) - 1e-9)
    assert sign_flip_p([1.0] * 32) == 2 / 2**32


def test_more_are_drawn_from_a_generator_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    values = normal(30, 0.35, seed=5)
    exact = sign_flip_p(values)
    monkeypatch.setattr(statistics, "EXACT_UP_TO", 29)
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    drawn = sign_flip_p(values)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    assert drawn == sign_flip_p(values) != exact
    error = math.sqrt(exact * (1 - exact) / statistics.DRAWS)
    assert abs(drawn - exact) < 4 * error
    # the observed pattern is one of them, so that p is never 0
    assert sign_flip_p([1.0] * 40) == 1 / (statistics.DRAWS + 1)


def test_many_draws_are_made_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    draw = np.random.Generator.integers

    class Watched:
        def __init__(self, seed: int) -> None:
            self.generator = np.random.Generator(np.random.PCG64(seed))

        def integers(self, low: int, high: int, size: Any, dtype: Any) -> Any:
            sizes.append(size)
            return draw(self.generator, low, high, size, dtype=dtype)

    monkeypatch.setattr(np.random, "default_rng", Watched)
    sign_flip_p([1.0] * 400)
    assert sum(rows for rows, _ in sizes) == statistics.DRAWS
    assert max(rows * columns for rows, columns in sizes) <= 1_000_000


@pytest.mark.parametrize(("first", "second"), [(0, 0), (6, 0), (1, 4), (5, 5), (0, 30), (12, 3)])
def test_the_sign_test_is_scipys_binomial_test(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert sign_p(first, second) == pytest.approx(expected, rel=1e-12)


def test_holm_of_an_example_worked_by_hand() -> None:
    # sorted: 0.005·4 = 0.02, 0.01·3 = 0.03, 0.03·2 = 0.06, 0.04·1 = 0.04, not below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_passes_over_tests_that_were_not_made() -> None:
    assert holm([None, 0.02, None, 0.03]) == [None, 0.04, None, 0.04]
    assert holm([None]) == [None]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_holm_is_bonferroni_closed_over_all_intersections(count: int) -> None:
    generator = np.random.default_rng(count)
    for _ in range(50):
        # some of them equal
        p_values = [float(p) for p in generator.integers(1, 40, count) / 40]
        subsets = [s for n in range(count) for s in itertools.combinations(range(count), n + 1)]
        expected = [
            max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s)
            for i in range(count)
        ]
        assert holm(p_values) == pytest.approx(expected)


@pytest.mark.parametrize(("pairs", "effect", "level"), [(6, 1.5, 0.05), (12, -0.7, 0.01)])
def test_the_power_is_that_of_simulated_tests(pairs: int, effect: float, level: float) -> None:
    values = np.random.default_rng(7).normal(effect * 3, 3, (20_000, pairs))
    found = np.mean(stats.ttest_1samp(values, 0, axis=1).pvalue <= level)
    power = paired_t_power(pairs, effect * 3, 3, level)
    assert abs(found - power) < 4 * math.sqrt(power * (1 - power) / 20_000)


def test_no_effect_is_found_as_often_as_the_level_says() -> None:
    assert paired_t_power(8, 0.0, 1.0, level=0.05) == pytest.approx(0.05)
    assert paired_t_power(8, 1e9, 1.0) == 1


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.6, 1.0, 1.2])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_the_seeds_needed_are_the_fewest(ratio: float, level: float) -> None:
    seeds = seeds_needed(ratio * 0.01, 0.01, level=level)
    assert seeds is not None
    assert seeds > 6
    assert (
        paired_t_power(seeds, ratio, 1, level) >= 0.8 > paired_t_power(seeds - 1, ratio, 1, level)
    )
    assert seeds_needed(-ratio, 1, level=level) == seeds


def test_six_seeds_are_enough_if_they_will_have_one_sign() -> None:
    # z with a chance of 0.8 that six differences have one sign
    edge = float(stats.norm.ppf(0.8 ** (1 / 6)))
    assert paired_t_power(6, edge - 0.01, 1) > 0.8
    assert seeds_needed(edge - 0.01, 1) == 7
    assert seeds_needed(edge + 0.01, 1) == 6
    assert seeds_needed(100.0, 1) == 6


def test_some_effects_need_more_seeds_than_anybody_has() -> None:
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.001, 1.0) is None
    assert seeds_needed(0.03, 1.0) is not None


def test_five_pairs_are_too_few() -> None:
    assert smallest_p(5) > 0.05 > smallest_p(6)
    for count in (2, 5, 6, 9):
        assert smallest_p(count) == sign_flip_p([1.0, *range(2, count + 1)])


BAD: list[Any] = [[], [1.0], [1.0, math.nan], [math.inf, 1.0], [[1.0, 2.0], [3.0, 4.0]]]


@pytest.mark.parametrize("differences", BAD, ids=repr)
@pytest.mark.parametrize("function", [paired_t_interval, paired_t_p, sign_flip_p])
def test_bad_differences(function: Any, differences: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{function.__name__}: differences="):
        function(differences)


def test_bad_numbers() -> None:
    with pytest.raises(ArgumentError, match="level=1"):
        paired_t_interval([1.0, 2.0], level=1)
    with pytest.raises(ArgumentError, match="rounding=-1"):
        sign_flip_p([1.0, 2.0], rounding=-1)
    with pytest.raises(ArgumentError, match=r"p=1\.5"):
        holm([0.1, 1.5])
    with pytest.raises(ArgumentError, match="spread=0"):
        seeds_needed(1.0, 0)
    with pytest.raises(ArgumentError, match="effect=nan"):
        seeds_needed(math.nan, 1.0)
    with pytest.raises(ArgumentError, match="power=1"):
        seeds_needed(1.0, 1.0, power=1)
    with pytest.raises(ArgumentTypeError, match="spread='1'"):
        paired_t_power(6, 1.0, "1")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="pairs=1"):
        paired_t_power(1, 1.0, 1.0)
    with pytest.raises(ArgumentError, match="pairs=0"):
        smallest_p(0)
    with pytest.raises(ArgumentError, match="counts -1 and 2"):
        sign_p(-1, 2)
