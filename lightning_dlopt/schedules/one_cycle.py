"""One rise and one fall of the learning rate."""

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span, parse_span
from lightning_dlopt.schedules import curves
from lightning_dlopt.schedules.base import Schedule
from lightning_dlopt.schedules.factor_lr import Curve


class OneCycleLR(Schedule):
    """Raise the learning rate to its initial value by cosine, then lower it nearly to zero.

    Source: L. N. Smith, N. Topin, Super-Convergence: Very Fast Training of Neural Networks Using
    Large Learning Rates, 2018, arXiv:1708.07120; in the form of torch's ``OneCycleLR`` with two
    phases. Differences: the peak is the optimizer's own rate, so it is given once; momentum is
    left alone; as with every curve here, the end is reached after the run's last step, not at it.

    When:
        Short runs at a large peak rate, larger than a constant one could be. The optimizer's rate
        is the peak: raise it.

    When not:
        The peak isn't tuned: at an ordinary rate the rise only costs time. Nor if the run may be
        prolonged.

    Args:
        rise: the span of the rise, counted after the warm-up; shorter than the rest of the run.
        start: the factor at the first step, in [0, 1]; torch's ``1 / div_factor``.
        end: the factor at the run's end, in [0, 1]; torch's ``1 / (div_factor *
            final_div_factor)``.
        warmup: see :class:`Schedule`; seldom wanted here, since the cycle begins with a rise.
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Example:
        >>> [round(factor, 2) for factor in OneCycleLR(rise=2).simulate(total=4)]
        [0.04, 0.52, 1.0, 0.5]
    """

    def __init__(
        self,
        rise: Span = "30%",
        start: float = 0.04,
        end: float = 4e-6,
        warmup: Span = 0,
        warmup_start: float = 0.0,
        replace: bool = False,
    ) -> None:
        super().__init__(warmup, warmup_start, replace)
        self._rise = parse_span(rise, self, "rise")
        self.rise = rise
        self.start = check_number(self, "start", start, "[0, 1]")
        self.end = check_number(self, "end", end, "[0, 1]")

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the cycle from the end of the warm-up to the end of the run."""
        total = self.remaining(run, begin)
        rise = self._rise.steps(run)
        if run.trial:
            rise = min(rise, total // 2)
        elif rise >= total:
            raise ArgumentError(
                f"{self!r}: rise={self.rise!r} is {rise} steps and leaves nothing to fall in: "
                f"{total} steps of the run come after the warm-up"
            )
        share = rise / max(total, 1)
        return lambda step: curves.one_cycle(step - begin, total, share, self.start, self.end)
