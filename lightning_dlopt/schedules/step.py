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
