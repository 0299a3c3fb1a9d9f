"""The step ladder: the learning rate falls at regular or at given points."""

from collections.abc import Sequence

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span, parse_period
from lightning_dlopt.schedules import curves
from lightning_dlopt.schedules.base import Schedule
from lightning_dlopt.schedules.factor_lr import Curve
from lightning_dlopt.schedules.milestones import parse_milestones, resolve_milestones


class StepLR(Schedule):
    """Multiply the learning rate by ``gamma`` after every ``every``, counted from the start.

    torch's ``StepLR`` counts calls of ``step``; here the span has a unit.

    Source: C. Szegedy and others, Going Deeper with Convolutions, 2014, arXiv:1409.4842, whose rate
    falls by 4 % every 8 epochs.

    When:
        A recipe with equal stairs is to be repeated, or the rate shall be told from the epoch's
        number.

    When not:
        The stairs aren't tuned to the run's length: in a shorter run the last drops never come, in
        a longer one the rate is all but 0 early.

    Args:
        every: the length of a stair.
        gamma: the factor at each stair, above 0.
        warmup: see :class:`Schedule`.
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Example:
        >>> StepLR(every=2, gamma=0.5).simulate(total=5)
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(
        self,
        every: Span,
        gamma: float = 0.1,
        warmup: Span = 0,
        warmup_start: float = 0.0,
        replace: bool = False,
    ) -> None:
        super().__init__(warmup, warmup_start, replace)
        self._every = parse_period(every, self, "every")
        self.every = every
        self.gamma = check_number(self, "gamma", gamma, "(0, inf)")

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the ladder from the start of training."""
        periods = self._every.count(run)
        return lambda step: curves.step_decay(periods(step), 1, self.gamma)


class MultiStepLR(Schedule):
    """Multiply the learning rate by ``gamma`` at each milestone, counted from the start.

    Source: P. Goyal and others, Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, 2017,
    arXiv:1706.02677, with drops to a tenth after epochs 30, 60 and 80 of 90.

    When:
        A recipe that names its drops is to be repeated, as those for residual networks with SGD do.

    When not:
        Nobody knows the milestones: they are as many numbers to tune, for each length of the run
        anew.

    Args:
        milestones: increasing spans from the start of training.
        gamma: the factor at each milestone, above 0.
        warmup: see :class:`Schedule`.
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Example:
        >>> MultiStepLR(milestones=["25%", "75%"], gamma=0.5).simulate(total=4)
        [1.0, 0.5, 0.5, 0.25]
    """

    def __init__(
        self,
        milestones: Sequence[Span],
        gamma: float = 0.1,
        warmup: Span = 0,
        warmup_start: float = 0.0,
        replace: bool = False,
    ) -> None:
        super().__init__(warmup, warmup_start, replace)
        self._milestones = parse_milestones(milestones, self)
        self.milestones = list(milestones)
        self.gamma = check_number(self, "gamma", gamma, "(0, inf)")

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the stairs from the start of training."""
        milestones = resolve_milestones(self, self._milestones, run)
        return lambda step: curves.multi_step(step, milestones, self.gamma)
