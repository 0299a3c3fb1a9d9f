"""Warm-up, a long plateau, and a short decay at the end."""

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span, parse_period
from lightning_dlopt.schedules import curves
from lightning_dlopt.schedules.base import Schedule
from lightning_dlopt.schedules.factor_lr import Curve


class WarmupStableDecayLR(Schedule):
    """Warm up, hold the initial learning rate, and lower it in a straight line at the end.

    A run that turns out too short can go on from a checkpoint of its plateau: only the decay
    depends on where the run ends.

    Source: S. Hu et al., MiniCPM: Unveiling the Potential of Small Language Models with Scalable
    Training Strategies, 2024, arXiv:2404.06395, with a linear decay instead of an exponential one.

    When:
        The length isn't settled: a checkpoint of the plateau can be trained on for longer, or
        decayed several times, for runs of several lengths.

    When not:
        The length is settled: CosineLR or LinearLR then have no length of a decay to choose.

    Args:
        warmup: see :class:`Schedule`.
        decay: the span of the decay at the end of the run.
        floor: the factor at the run's end, in [0, 1].
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Example:
        >>> WarmupStableDecayLR(warmup=2, decay=2).simulate(total=6)
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.5]
    """

    def __init__(
        self,
        warmup: Span,
        decay: Span = "20%",
        floor: float = 0.0,
        warmup_start: float = 0.0,
        replace: bool = False,
    ) -> None:
        super().__init__(warmup, warmup_start, replace)
        self._decay = parse_period(decay, self, "decay")
        self.decay = decay
        self.floor = check_number(self, "floor", floor, "[0, 1]")

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the plateau and the decay, up to the end of the run."""
        total = self.remaining(run, begin)
        decay = self._decay.steps(run)
        if decay > total:
            if not run.trial:
                raise ArgumentError(
                    f"{self!r}: warmup={self.warmup!r} and decay={self.decay!r} are {begin} and "
                    f"{decay} steps, but the run has only {run.total}"
                )
            decay = total
        return lambda step: curves.stable_decay(step - begin, total, decay, self.floor)
