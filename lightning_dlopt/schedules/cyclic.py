"""The learning rate goes up and down in straight lines."""

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span, parse_period
from lightning_dlopt.schedules import curves
from lightning_dlopt.schedules.base import Schedule
from lightning_dlopt.schedules.factor_lr import Curve


class CyclicLR(Schedule):
    """Move the learning rate between two factors and back, once in every ``period``.

    Source: L. N. Smith, Cyclical Learning Rates for Training Neural Networks, 2017,
    arXiv:1506.01186, the "triangular" policy. Difference from torch's ``CyclicLR``: the bounds are
    factors of the optimizer's own rate, and momentum is left alone.

    When:
        A range of good rates is known, as from a range test, but no single one.

    When not:
        The end matters most and ``low`` isn't small: the rate never falls below it. A period that
        doesn't divide the run ends it at a higher rate still.

    Args:
        period: the length of a whole cycle, up and down, counted after the warm-up.
        low: the factor at the cycle's ends, at least 0.
        high: the factor in its middle, at least ``low``.
        warmup: see :class:`Schedule`.
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Example:
        >>> CyclicLR(period=4, low=0.0, high=1.0).simulate(total=5)
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def __init__(
        self,
        period: Span,
        low: float,
        high: float,
        warmup: Span = 0,
        warmup_start: float = 0.0,
        replace: bool = False,
    ) -> None:
        super().__init__(warmup, warmup_start, replace)
        self._period = parse_period(period, self, "period")
        self.period = period
        self.low = check_number(self, "low", low, "[0, inf)")
        self.high = check_number(self, "high", high, "[0, inf)")
        if self.high < self.low:
            raise ArgumentError(f"CyclicLR: high={high!r} must be at least low={low!r}")

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the cycles from the end of the warm-up."""
        periods = self._period.count(run, begin)
        return lambda step: curves.cyclic(periods(step), 1, self.low, self.high)
