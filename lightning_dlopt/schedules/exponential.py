"""Exponential decay and exponential growth of the learning rate."""

import math

from lightning_dlopt.core.checks import check_flag, check_number
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span, parse_period
from lightning_dlopt.schedules import curves
from lightning_dlopt.schedules.base import Schedule
from lightning_dlopt.schedules.factor_lr import Curve


class ExponentialDecayLR(Schedule):
    """Multiply the learning rate by ``gamma`` once in every ``every``, counted after the warm-up.

    torch's ``ExponentialLR`` decays at each call of ``step``; here the pace has a unit, and the
    rate changes at every optimizer step unless ``staircase`` is set.

    Source: of long practice; for instance every second epoch by 0.94 in C. Szegedy and others,
    Rethinking the Inception Architecture for Computer Vision, 2016, arXiv:1512.00567, which is
    ``ExponentialDecayLR(0.94, every="2ep", staircase=True)``.

    When:
        The length of the run is open: the rate depends on what has been trained, not on what is to
        come.

    When not:
        The length is known: here the pace must be tuned to it, as too fast a decay stops learning
        and too slow a one ends at a high rate. CosineLR and LinearLR need no pace.

    Args:
        gamma: the factor, in (0, 1).
        every: the span in which it is applied once.
        staircase: apply it at the end of each span instead of smoothly.
        floor: the factor of the initial rate that is not gone below, in [0, 1].
        warmup: see :class:`Schedule`.
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Example:
        >>> ExponentialDecayLR(gamma=0.25, every=2).simulate(total=4)
        [1.0, 0.5, 0.25, 0.125]
    """

    def __init__(
        self,
        gamma: float,
        every: Span = "1ep",
        staircase: bool = False,
        floor: float = 0.0,
        warmup: Span = 0,
        warmup_start: float = 0.0,
        replace: bool = False,
    ) -> None:
        super().__init__(warmup, warmup_start, replace)
        self.gamma = check_number(self, "gamma", gamma, "(0, 1)")
        self._every = parse_period(every, self, "every")
        self.every = every
        self.staircase = check_flag(self, "staircase", staircase)
        self.floor = check_number(self, "floor", floor, "[0, 1]")

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the decay from the end of the warm-up."""
        periods = self._every.count(run, begin)
        return lambda step: curves.exponential_decay(
            periods(step), 1, self.gamma, self.staircase, self.floor
        )


class ExponentialGrowthLR(Schedule):
    """Multiply the learning rate by ``gamma`` > 1 once in every ``every``, after the warm-up.

    Growth over a short run is how a range of useful rates is found: L. N. Smith, Cyclical Learning
    Rates for Training Neural Networks, 2017, arXiv:1506.01186, section 3.3, grows it linearly.

    When:
        To find the range of useful rates: a short run from a tiny rate, whose loss shows where
        learning begins and where it breaks.

    When not:
        To train to the end: the run would end at its largest rate, where the weights jump most.

    Args:
        gamma: the factor, above 1.
        every: the span in which it is applied once.
        staircase: apply it at the end of each span instead of smoothly.
        ceiling: the factor of the initial rate that is not exceeded, at least 1.
        warmup: see :class:`Schedule`.
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Raises:
        ArgumentError: before the first step, if the rate would reach infinity within the run.

    Example:
        >>> ExponentialGrowthLR(gamma=4.0, every=2, ceiling=5.0).simulate(total=4)
        [1.0, 2.0, 4.0, 5.0]
    """

    def __init__(
        self,
        gamma: float,
        every: Span = "1ep",
        staircase: bool = False,
        ceiling: float = math.inf,
        warmup: Span = 0,
        warmup_start: float = 0.0,
        replace: bool = False,
    ) -> None:
        super().__init__(warmup, warmup_start, replace)
        self.gamma = check_number(self, "gamma", gamma, "(1, inf)")
        self._every = parse_period(every, self, "every")
        self.every = every
        self.staircase = check_flag(self, "staircase", staircase)
        self.ceiling = check_number(self, "ceiling", ceiling, "[1, inf]")

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the growth from the end of the warm-up."""
        periods = self._every.count(run, begin)

        def factor(step: int) -> float:
            return curves.exponential_growth(
                periods(step), 1, self.gamma, self.staircase, self.ceiling
            )

        if run.total is not None and math.isinf(factor(run.total)):
            raise ArgumentError(
                f"{self!r}: the rate grows to infinity within the run's {run.total} steps: "
                "give a ceiling, a smaller gamma or a longer every"
            )
        return factor
