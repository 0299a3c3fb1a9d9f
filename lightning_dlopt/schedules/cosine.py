"""The learning rate falls along half a cosine wave, once or with warm restarts."""

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span, parse_period
from lightning_dlopt.schedules import curves
from lightning_dlopt.schedules.base import Schedule
from lightning_dlopt.schedules.factor_lr import Curve


class CosineLR(Schedule):
    """Lower the learning rate along half a cosine wave over the rest of the run.

    Source: I. Loshchilov, F. Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017,
    arXiv:1608.03983, equation 5 without restarts, the rate changing at every step.

    When:
        The length of the run is known: a curve with hardly anything to tune, for any optimizer;
        with a short warm-up for attention or large rates.

    When not:
        The run may be stopped early, when the rate is still high, or prolonged, which asks for
        another curve: see WarmupStableDecayLR.

    Args:
        floor: the factor at the run's end, in [0, 1].
        warmup: see :class:`Schedule`.
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Example:
        >>> [round(factor, 2) for factor in CosineLR().simulate(total=4)]
        [1.0, 0.85, 0.5, 0.15]
    """

    def __init__(
        self,
        floor: float = 0.0,
        warmup: Span = 0,
        warmup_start: float = 0.0,
        replace: bool = False,
    ) -> None:
        super().__init__(warmup, warmup_start, replace)
        self.floor = check_number(self, "floor", floor, "[0, 1]")

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the wave from the end of the warm-up to the end of the run."""
        total = self.remaining(run, begin)
        return lambda step: curves.cosine(step - begin, total, self.floor)


class CosineRestartsLR(Schedule):
    """Lower the learning rate along half a cosine wave, again and again from the top.

    Source: I. Loshchilov, F. Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017,
    arXiv:1608.03983.

    When:
        Usable weights are wanted at several moments of one run, at the end of each period, be it
        for an ensemble or because the right length isn't known.

    When not:
        The last period doesn't end with the run, which then ends at a high rate; or one fall is
        enough, which CosineLR gives.

    Args:
        period: the length of the first fall, counted after the warm-up.
        multiplier: each period is this many times as long as the last, at least 1.
        floor: the lowest factor, in [0, 1].
        warmup: see :class:`Schedule`.
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Example:
        >>> [round(f, 2) for f in CosineRestartsLR(period=2).simulate(total=4)]
        [1.0, 0.5, 1.0, 0.5]
    """

    def __init__(
        self,
        period: Span,
        multiplier: float = 1.0,
        floor: float = 0.0,
        warmup: Span = 0,
        warmup_start: float = 0.0,
        replace: bool = False,
    ) -> None:
        super().__init__(warmup, warmup_start, replace)
        self._period = parse_period(period, self, "period")
        self.period = period
        self.multiplier = check_number(self, "multiplier", multiplier, "[1, inf)")
        self.floor = check_number(self, "floor", floor, "[0, 1]")

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the waves from the end of the warm-up."""
        periods = self._period.count(run, begin)
        return lambda step: curves.cosine_restarts(periods(step), 1, self.multiplier, self.floor)
