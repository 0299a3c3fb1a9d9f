"""The learning rate falls in a straight line, or along a power of it."""

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span
from lightning_dlopt.schedules import curves
from lightning_dlopt.schedules.base import Schedule
from lightning_dlopt.schedules.factor_lr import Curve


class LinearLR(Schedule):
    """Take the learning rate from its initial value to ``end`` times it in a straight line.

    torch's ``LinearLR`` is a warm-up by default; here that is ``warmup``, and the line spans the
    rest of the run.

    Source: with a warm-up as in J. Devlin, M. Chang, K. Lee, K. Toutanova, BERT: Pre-training of
    Deep Bidirectional Transformers, 2018, arXiv:1810.04805; on why a line: A. Defazio, A. Cutkosky,
    H. Mehta, K. Mishchenko, Optimal Linear Decay Learning Rate Schedules and Further Refinements,
    2023, arXiv:2310.07831.

    When:
        The length of the run is known; with a warm-up, the usual choice for transformers and for
        fine-tuning them.

    When not:
        The run may be prolonged or stopped early.

    Args:
        end: the factor at the run's end, at least 0.
        warmup: see :class:`Schedule`.
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Example:
        >>> LinearLR().simulate(total=4)
        [1.0, 0.75, 0.5, 0.25]
    """

    def __init__(
        self,
        end: float = 0.0,
        warmup: Span = 0,
        warmup_start: float = 0.0,
        replace: bool = False,
    ) -> None:
        super().__init__(warmup, warmup_start, replace)
        self.end = check_number(self, "end", end, "[0, inf)")

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the line from the end of the warm-up to the end of the run."""
        total = self.remaining(run, begin)
        return lambda step: curves.linear(step - begin, total, self.end)


class PolynomialLR(Schedule):
    """Lower the learning rate as ``(1 - progress) ** power``, to ``end`` times its initial value.

    Source: the "poly" policy, with a power of 0.9 in L. Chen, G. Papandreou, I. Kokkinos, K.
    Murphy, A. Yuille, DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous
    Convolution, and Fully Connected CRFs, 2016, arXiv:1606.00915.

    When:
        The length of the run is known, and the rate shall stay high for longer, or less long, than
        a line: powers of 0.9 are usual in segmentation.

    When not:
        Nothing speaks for a certain power: LinearLR and CosineLR have none to tune.

    Args:
        power: the exponent, above 0; 1 is a straight line.
        end: the factor at the run's end, at least 0.
        warmup: see :class:`Schedule`.
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Example:
        >>> PolynomialLR(power=2).simulate(total=4)
        [1.0, 0.5625, 0.25, 0.0625]
    """

    def __init__(
        self,
        power: float,
        end: float = 0.0,
        warmup: Span = 0,
        warmup_start: float = 0.0,
        replace: bool = False,
    ) -> None:
        super().__init__(warmup, warmup_start, replace)
        self.power = check_number(self, "power", power, "(0, inf)")
        self.end = check_number(self, "end", end, "[0, inf)")

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the power curve from the end of the warm-up to the end of the run."""
        total = self.remaining(run, begin)
        return lambda step: curves.polynomial(step - begin, total, self.power, self.end)
