"""Gradient-norm tail: whether some steps have gradients far larger than the usual ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError
from lightning_dlopt.evidence.advise.overlays import add_callback, callback_names, rounded
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.subject import Subject

_STEPS, _LEAST = 100, 20
#: How many times the usual the largest norm must be to be a tail.
_TAIL = 20.0
_CLIPS = {"ClipGradNorm", "ClipGradValue", "AdaptiveClip", "QuantileClip"}


@dataclass(frozen=True)
class Tail:
    """The norms of a run's gradients.

    Attributes:
        median: of the finite ones.
        high: their 90 % quantile, at which they could be clipped.
        largest: of the finite ones.
        not_finite: how many weren't.
        ratio: the largest norm in units of what is usual around it; infinite if one isn't finite.
    """

    median: float
    high: float
    largest: float
    not_finite: int
    ratio: float


def gradient_tail(norms: Sequence[float], reach: int = 10) -> Tail:
    """Return how far the largest of gradient norms are from the usual ones.

    Norms fall as a module learns, so each is measured by the median of those up to ``reach`` steps
    from it, and by no less than half the lower quartile of the first ten. Norms that grow
    throughout are no tail of any such median, so the growth from the first fifth to the last
    counts, too: a fifth of it, as some networks begin with small gradients.

    Example:
        >>> gradient_tail([1.0, 1.0, 2.0, 1.0, 1.0, 30.0, 1.0])
        Tail(median=1.0, high=30.0, largest=30.0, not_finite=0, ratio=30.0)
    """
    finite = [norm for norm in norms if math.isfinite(norm)]
    if not finite:
        return Tail(math.nan, math.nan, math.nan, len(norms), math.inf)
    high = min(quantiles(finite, n=10)[-1], max(finite)) if len(finite) > 1 else finite[0]
    missing = len(norms) - len(finite)
    ratio = math.inf if missing else max(_jump(finite, reach), _growth(finite) / 5)
    return Tail(median(finite), high, max(finite), missing, ratio)


def _jump(norms: Sequence[float], reach: int) -> float:
    first = sorted(norms[:10])
    least = max(0.5 * first[len(first) // 4], 1e-30)
    return max(
        norm / max(median(norms[max(0, i - reach) : i + reach + 1]), least)
        for i, norm in enumerate(norms)
    )


def _growth(norms: Sequence[float]) -> float:
    part = max(1, len(norms) // 5)
    return median(norms[-part:]) / max(median(norms[:part]), 1e-30)


class GradientNorms(Callback):
    """Notes the norm of all gradients before each optimizer step, before any clipping."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Note it."""
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.norms.append(float(norm))
        if not math.isfinite(self.norms[-1]):
            trainer.should_stop = True  # nothing that follows means anything


class GradientTail(Probe):
    """Trains for a while at the configured rate and looks at the norms of the gradients."""

    name = "gradient-norm tail"
    questions = ("optimizer",)
    share = 1.0

    def run(self, subject: Subject) -> list[Finding]:
        """Compare the largest norm with the median."""
        steps, watch = subject.affordable(_STEPS, _LEAST), GradientNorms()
        try:
            subject.train([watch], steps)
        except Exception:  # such as a check of the module's own that a weight isn't finite
            if not watch.norms or math.isfinite(watch.norms[-1]):
                raise
        if not watch.norms:
            raise NotDoneError("no optimizer step was made")
        tail = gradient_tail(watch.norms)
        data: dict[str, Any] = {
            "steps": len(watch.norms),
            "median": tail.median,
            "quantile_90": tail.high,
            "largest": tail.largest,
            "not_finite": tail.not_finite,
            "ratio": tail.ratio,
        }
        figure = (
            f"largest gradient norm {tail.largest:.3g}, median {tail.median:.3g}, at most "
            f"{tail.ratio:.3g} times what is usual around it, in {len(watch.norms)} steps"
        )
        if tail.not_finite:
            before = (
                f"median norm before it {tail.median:.3g}" if tail.median > 0 else "none before"
            )
            figure = f"a gradient that isn't finite in step {len(watch.norms)}, {before}"
        if tail.ratio < _TAIL:
            reason = "No step's gradient is far above the others': nothing has to be clipped."
            return [Finding(self.name, "optimizer", figure, reason, data)]
        clipped = self._clips(subject)
        if clipped and not tail.not_finite:
            reason = f"There is a tail, and {clipped} cuts it off already."
            return [Finding(self.name, "optimizer", figure, reason, data)]
        severity = 1.0 if tail.not_finite else min(0.9, 0.4 + 0.1 * math.log2(tail.ratio / _TAIL))
        # where training blows up, the norms before it may be out of bounds themselves
        limit = rounded(min(tail.median, 1.0) if tail.not_finite else tail.high)
        can_clip = not clipped and math.isfinite(limit) and limit > 0
        return [
            Finding(
                self.name,
                "optimizer",
                figure,
                "A few huge gradients undo what many steps have learned; scaled down to an "
                "ordinary norm they keep their direction and lose their force.",
                data,
                severity,
                f"clip gradients at norm {limit:g}" if can_clip else "find where they explode",
                add_callback("ClipGradNorm", max_norm=limit) if can_clip else None,
                arm="clip_grad_norm",
            )
        ]

    @staticmethod
    def _clips(subject: Subject) -> str | None:
        """Return what clips already, or None."""
        if subject.trainer is not None and subject.trainer.gradient_clip_val:
            return "trainer.gradient_clip_val"
        own = {type(one).__name__ for one in subject.techniques()}
        found = sorted(_CLIPS & (callback_names(subject.config) | own))
        return found[0] if found else None
