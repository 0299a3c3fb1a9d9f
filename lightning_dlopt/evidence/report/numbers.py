"""How numbers are written: the same in Markdown, on the page and in the pictures."""

import math
from dataclasses import dataclass
from statistics import median

from lightning_dlopt.core.errors import one_line
from lightning_dlopt.evidence.analysis import Analysis
from lightning_dlopt.evidence.runs import Study

#: Stands where there is nothing to say.
NOTHING = "\N{EN DASH}"
MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Scale:
    """How values of the outcome are written.

    Attributes:
        percent: whether they are shares in [0, 1], written in per cent and percentage points.
        decimals: digits after the point.
    """

    percent: bool
    decimals: int

    def value(self, value: float | None) -> str:
        """Return a value, such as ``91.25 %``.

        Example:
            >>> Scale(True, 2).value(0.9125), Scale(False, 3).value(0.9125)
            ('91.25 %', '0.912')
        """
        if value is None:
            return NOTHING
        return self._digits(value) + (" %" if self.percent else "")

    def difference(self, difference: float | None) -> str:
        """Return a difference with its sign and unit, such as ``+0.42 pp``."""
        if difference is None:
            return NOTHING
        return self._signed(difference) + (" pp" if self.percent else "")

    def width(self, width: float) -> str:
        """Return a spread with its unit and without a sign, such as ``0.42 pp``."""
        return self._digits(width) + (" pp" if self.percent else "")

    def interval(self, low: float | None, high: float | None) -> str:
        """Return an interval, such as ``+0.18 to +0.64``; it has the unit of differences."""
        if low is None or high is None:
            return NOTHING
        return f"{self._signed(low)} to {self._signed(high)}"

    def _digits(self, value: float) -> str:
        text = f"{value * (100 if self.percent else 1):.{self.decimals}f}"
        return text.replace("-", MINUS if float(text) else "")

    def _signed(self, value: float) -> str:
        text = self._digits(value)
        return f"+{text}" if float(text.replace(MINUS, "-")) > 0 else text


def choose_scale(study: Study, analysis: Analysis) -> Scale:
    """Return how a study's outcome is written.

    A larger-is-better outcome whose values all lie in [0, 1] is a share. There are as many digits
    as give half the width of an interval two that count.
    """
    arms = ["baseline", *(result.arm for result in analysis.arms)]
    runs = [run for arm in arms for run in study.reported(arm).values()]
    values = [value for run in runs if (value := study.value(run)) is not None]
    percent = study.larger_is_better and bool(values) and all(0 <= v <= 1 for v in values)
    widths = [
        (result.high - result.low) / 2
        for result in analysis.arms
        if result.low is not None and result.high is not None
    ]
    usable = [width for width in widths if width > 0 and math.isfinite(width)]
    factor = 100 if percent else 1
    if usable:
        decimals = 1 - math.floor(math.log10(median(usable) * factor))
    else:
        sizes = [abs(value) for value in values if value and math.isfinite(value)]
        decimals = 3 - math.floor(math.log10(median(sizes) * factor)) if sizes else 4
    return Scale(percent, min(max(decimals, 1), 3) if percent else min(max(decimals, 0), 9))


def write_p(p: float | None) -> str:
    """Return a p value to three digits after the point.

    Example:
        >>> write_p(0.03125), write_p(1e-5)
        ('0.031', '<0.001')
    """
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def write_ratio(ratio: float | None) -> str:
    """Return a ratio such as ``1.25×``."""  # noqa: RUF002
    return NOTHING if ratio is None else f"{ratio:.2f}{TIMES}"


def write_factor(factor: float) -> str:
    """Return a factor of the learning rate such as ``×0.3``."""  # noqa: RUF002
    return f"{TIMES}{factor:g}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "seed"), count(6, "seed")
        ('1 seed', '6 seeds')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clean(text: str) -> str:
    """Return a name or message on one line, with a sign in place of what can't be printed."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in one_line(text)
    )
