"""Several set points in training, another learning rate at each."""

from collections.abc import Sequence
from typing import Literal, cast

from lightning_dlopt.core.checks import check_choice, check_number
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span
from lightning_dlopt.schedules import curves
from lightning_dlopt.schedules.base import Schedule
from lightning_dlopt.schedules.factor_lr import Curve
from lightning_dlopt.schedules.milestones import parse_milestones, resolve_milestones


class PiecewiseLR(Schedule):
    """Take the learning rate's factor from a table of points in training.

    The "infrared learning rate" of some course texts (several set points, another rate at each)
    is read as this.

    Source: besides those texts, D. Page, How to Train Your ResNet, 2018, whose rates are such a
    table, with straight lines between the points.

    When:
        The rates at some points of training are known, from another recipe or from experience, and
        no other curve has them.

    When not:
        They would be guessed: each point is two more numbers to tune.

    Args:
        milestones: increasing spans from the start of training.
        factors: one for each milestone, at least 0, in force from it on. Before the first it is 1.
        interpolate: ``"none"`` jumps at each milestone; ``"linear"`` and ``"cosine"`` run between
            the points, from (0, 1) on, and reach each factor at its milestone.
        warmup: see :class:`Schedule`.
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Example:
        >>> PiecewiseLR(milestones=[1, 3], factors=[0.5, 0.1]).simulate(total=4)
        [1.0, 0.5, 0.5, 0.1]
    """

    def __init__(
        self,
        milestones: Sequence[Span],
        factors: Sequence[float],
        interpolate: Literal["none", "linear", "cosine"] = "none",
        warmup: Span = 0,
        warmup_start: float = 0.0,
        replace: bool = False,
    ) -> None:
        super().__init__(warmup, warmup_start, replace)
        self._milestones = parse_milestones(milestones, self)
        self.milestones = list(milestones)
        self.factors = [check_number(self, "factors", factor, "[0, inf)") for factor in factors]
        if len(self.factors) != len(self.milestones):
            raise ArgumentError(
                f"PiecewiseLR: factors={self.factors} must have one entry for each of "
                f"milestones={self.milestones}"
            )
        choice = check_choice(self, "interpolate", interpolate, ("none", "linear", "cosine"))
        self.interpolate = cast(curves.Interpolation, choice)

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the table from the start of training."""
        milestones = resolve_milestones(
            self, self._milestones, run, approached=self.interpolate != "none"
        )
        return lambda step: curves.piecewise(step, milestones, self.factors, self.interpolate)
