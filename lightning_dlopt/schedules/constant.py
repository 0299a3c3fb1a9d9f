"""A constant learning rate."""

from typing import ClassVar

from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.schedules import curves
from lightning_dlopt.schedules.base import Schedule
from lightning_dlopt.schedules.factor_lr import Curve


class ConstantLR(Schedule):
    """Keep the initial learning rate, after the warm-up if there is one.

    torch's ``ConstantLR`` is something else: it lowers the rate for the first steps only.

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
