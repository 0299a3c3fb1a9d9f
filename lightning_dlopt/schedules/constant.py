"""A constant learning rate."""

from typing import ClassVar

from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.schedules import curves
from lightning_dlopt.schedules.base import Schedule
from lightning_dlopt.schedules.factor_lr import Curve


class ConstantLR(Schedule):
    """Keep the initial learning rate, after the warm-up if there is one.

    torch's ``ConstantLR`` is something else: it lowers the rate for the first steps only.

    Source: none needed for a constant; that it must fall for steps along noisy gradients to settle
    is due to H. Robbins, S. Monro, A Stochastic Approximation Method, 1951.

    When:
        The baseline of every other schedule; a bare warm-up; beside EMA or a schedule-free
        optimizer, whose average does what a falling rate would.

    When not:
        The last weights are what is used: at a constant rate they go on jumping with the noise of
        the batches.

    Args:
        warmup: see :class:`Schedule`.
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Example:
        >>> ConstantLR(warmup=2).simulate(total=4)
        [0.5, 1.0, 1.0, 1.0]
    """

    may_be_constant: ClassVar[bool] = True

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the constant 1."""
        return curves.constant
