"""Tests and intervals for paired differences: pure functions on numbers.

SciPy is imported where it is used: it takes longer to load than all of this to run.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.errors import ArgumentError

Values = npt.NDArray[np.float64]

#: Up to how many differences the sign-flip test counts every pattern.
EXACT_UP_TO = 32
#: Patterns drawn above that, and the seed of their own generator.
DRAWS, DRAWS_SEED = 100_000, 20_221
#: The fewest pairs that can be significant at 5 %: 2/2^5 is above it.
FEWEST_PAIRS = 6
#: The most pairs that are ever advised.
MOST_PAIRS = 10_000
#: Sums this close, relative to the sum of the absolute differences, are equal but for rounding.
ROUNDING = 1e-12


def _checked(owner: str, differences: Sequence[float]) -> Values:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ArgumentError(f"{owner}: differences={differences!r} must be two numbers or more")
    if not np.isfinite(values).all():
        raise ArgumentError(f"{owner}: differences={differences!r} must be finite")
    return values


def _all_equal(values: Values) -> bool:
    return bool(np.ptp(values) <= ROUNDING * np.abs(values).max())


def paired_t_interval(
    differences: Sequence[float], level: float = 0.95
) -> tuple[float, float, float]:
    """Return mean and ends of Student's interval for the mean of paired differences.

    Args:
        differences: one for each pair, two or more, finite.
        level: of confidence, in (0, 1).

    Raises:
        ArgumentError: for other differences or another level.

    Example:
        >>> [round(end, 3) for end in paired_t_interval([1.0, 2.0, 3.0])]
        [2.0, -0.484, 4.484]
    """
    from scipy import stats  # type: ignore[import-untyped]

    values = _checked("paired_t_interval", differences)
    check_number("paired_t_interval", "level", level, "(0, 1)")
    mean, error = values.mean(), values.std(ddof=1) / math.sqrt(len(values))
    half = stats.t.isf((1 - level) / 2, len(values) - 1) * error
    return float(mean), float(mean - half), float(mean + half)


def paired_t_p(differences: Sequence[float]) -> float:
    """Return the two-sided p of the paired t test.

    Equal differences have no spread by which t could judge them; their p is the sign-flip test's
    (1 if all are 0).

    Raises:
        ArgumentError: for fewer than two differences, or one that isn't finite.

    Example:
        >>> round(paired_t_p([1.0, 2.0, 3.0]), 4)
        0.0742
        >>> paired_t_p([0.5, 0.5, 0.5])
        0.25
    """
    from scipy import stats

    values = _checked("paired_t_p", differences)
    if _all_equal(values):
        return sign_flip_p(differences)
    t = values.mean() / (values.std(ddof=1) / math.sqrt(len(values)))
    return float(2 * stats.t.sf(abs(t), len(values) - 1))


def _sums(values: Values) -> Values:
    """Return the sums under all 2^n patterns of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def sign_flip_p(differences: Sequence[float], rounding: float = 0.0) -> float:
    """Return the two-sided p of the sign-flip test on the mean of paired differences.

    If an arm does nothing, each difference could as well have the other sign: p is the share of
    the 2^n patterns of signs whose mean is as far from 0 as the observed one, or farther. Exact
    up to 32 differences: the sums of both halves are made, and pairs of them counted. Above that
    by 100 000 patterns from a generator of its own, with a fixed seed; the observed pattern
    counts as one of them.

    Args:
        differences: one for each pair, two or more, finite.
        rounding: error that rounding may have left in their sum; sums that are nearer to each
            other than twice that count as ties, which can only make p larger.

    Raises:
        ArgumentError: for other differences, or a negative rounding.

    Example:
        >>> sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == 2 / 2**6
        True
    """
    values = _checked("sign_flip_p", differences)
    check_number("sign_flip_p", "rounding", rounding, "[0, inf)")
    slack = 2 * rounding + ROUNDING * float(np.abs(values).sum())
    least = abs(float(values.sum())) - slack
    if least <= 0:
        return 1.0
    if len(values) > EXACT_UP_TO:
        return _drawn_p(values, least)
    half = len(values) // 2
    left, right = _sums(values[:half]), np.sort(_sums(values[half:]))
    above = len(right) * len(left) - int(np.searchsorted(right, least - left, "left").sum())
    # the patterns come in pairs of opposite sums
    return float(2 * above / 2 ** len(values))


def _drawn_p(values: Values, least: float) -> float:
    generator = np.random.default_rng(DRAWS_SEED)
    # at most a million signs at a time, whatever the number of differences
    block = max(1, 1_000_000 // len(values))
    extreme, left = 0, DRAWS
    while left:
        rows = min(block, left)
        signs = generator.integers(0, 2, (rows, len(values)), dtype=np.int8) * 2.0 - 1.0
        extreme += int((np.abs(signs @ values) >= least).sum())
        left -= rows
    return (extreme + 1) / (DRAWS + 1)


def sign_p(first: int, second: int) -> float:
    """Return the two-sided p of the exact sign test on counts: are both equally likely?

    Raises:
        ArgumentError: for a negative count.

    Example:
        >>> sign_p(6, 0), sign_p(0, 0)
        (0.03125, 1.0)
    """
    if min(first, second) < 0:
        raise ArgumentError(f"sign_p: counts {first} and {second} must be 0 or more")
    total = first + second
    tail = sum(math.comb(total, count) for count in range(min(first, second) + 1))
    return min(1.0, float(2 * tail / 2**total))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values adjusted for their number by Holm's step-down method.

    An adjusted value at most 0.05 keeps the chance of even one false finding among all at 5 %.
    None stands for a test that wasn't made: it stays None and doesn't count.

    Source: S. Holm, A simple sequentially rejective multiple test procedure (Scandinavian Journal
    of Statistics, 1979).

    Raises:
        ArgumentError: for a p outside [0, 1].

    Example:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]
    """
    made = [
        (check_number("holm", "p", p, "[0, 1]"), place)
        for place, p in enumerate(p_values)
        if p is not None
    ]
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(sorted(made)):
        largest = min(1.0, max(largest, (len(made) - rank) * p))
        adjusted[place] = largest
    return adjusted


def paired_t_power(pairs: int, effect: float, spread: float, level: float = 0.05) -> float:
    """Return the chance that the two-sided paired t test finds an effect.

    Args:
        pairs: how many, 2 or more.
        effect: true mean of the differences.
        spread: their true standard deviation, above 0.
        level: of significance, in (0, 1).

    Raises:
        ArgumentError: for an argument outside its range.

    Example:
        >>> round(paired_t_power(10, effect=1.0, spread=1.0), 3)
        0.803
    """
    from scipy import stats

    check_number("paired_t_power", "pairs", pairs, "[2, inf)")
    check_number("paired_t_power", "effect", effect, "(-inf, inf)")
    check_number("paired_t_power", "spread", spread, "(0, inf)")
    check_number("paired_t_power", "level", level, "(0, 1)")
    freedom, shift = pairs - 1, abs(effect) / spread * math.sqrt(pairs)
    critical = stats.t.isf(level / 2, freedom)
    power = stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)
    # far out the noncentral t isn't computed any more, and the chance is 1
    return float(power) if math.isfinite(power) else 1.0


def seeds_needed(
    effect: float, spread: float, power: float = 0.8, level: float = 0.05
) -> int | None:
    """Return how many pairs give an effect the chance ``power`` to be found.

    By the power of the paired t test. At 6 pairs, the fewest, the sign-flip test asks for more
    than that: six differences of one sign; if these are less likely, the answer is 7 or more.

    Args:
        effect: true mean of the differences.
        spread: their true standard deviation, above 0.
        power: in (0, 1).
        level: of significance, in (0, 1).

    Returns:
        The number, from 6 on; None above 10,000 and for no effect.

    Raises:
        ArgumentError: for an argument outside its range.

    Example:
        >>> seeds_needed(effect=1.0, spread=1.0), seeds_needed(effect=0.0, spread=1.0)
        (10, None)
    """
    check_number("seeds_needed", "power", power, "(0, 1)")

    def enough(pairs: int) -> bool:
        return paired_t_power(pairs, effect, spread, level) >= power

    if not enough(MOST_PAIRS) or effect == 0:
        return None
    # a test that knew the spread would need about as many; from there it isn't far
    normal = NormalDist()
    z = max(0.0, normal.inv_cdf(power) - normal.inv_cdf(level / 2))
    pairs = min(MOST_PAIRS, FEWEST_PAIRS + int((z * spread / effect) ** 2))
    while pairs > FEWEST_PAIRS and enough(pairs - 1):
        pairs -= 1
    while not enough(pairs):
        pairs += 1
    one_sign = normal.cdf(abs(effect) / spread) ** FEWEST_PAIRS
    return pairs + 1 if pairs == FEWEST_PAIRS and one_sign < power else pairs


def smallest_p(pairs: int) -> float:
    """Return the smallest p that the sign-flip test can give: 2/2^n.

    Raises:
        ArgumentError: for fewer than one pair.

    Example:
        >>> smallest_p(5), smallest_p(6)
        (0.0625, 0.03125)
    """
    check_number("smallest_p", "pairs", pairs, "[1, inf)")
    return float(2 / 2**pairs)
