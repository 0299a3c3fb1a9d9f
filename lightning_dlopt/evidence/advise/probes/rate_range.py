"""Rate range test: the loss while the learning rate sweeps over many orders of magnitude."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError
from lightning_dlopt.evidence.advise.overlays import rate_overlay, rounded
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.subject import Subject
from lightning_dlopt.evidence.advise.training import base_rate

#: The factors of the sweep go from one over this to this.
_SPAN = 1e4
#: Steps of the sweep, the fewest of them, and the part of them that the runs after it have.
_STEPS, _LEAST, _CHECK = 100, 40, 0.6
#: How far from the configured rate a better one must be to be worth a word.
_FAR = 8.0
#: The progress of the configured rate, as a share of the better one's, below which it is too high
#: or too low. Low rates lose in every short run and may win in a long one, so they get more room.
_TOO_HIGH, _TOO_LOW = 0.5, 0.2
#: A rate that is too low by less than this factor is an idea: few steps favor high rates.
_SURELY_LOW, _IDEA = 30.0, 0.25


@dataclass(frozen=True)
class Sweep:
    """What a sweep shows.

    Attributes:
        start: the loss at its beginning, where the rate is too small to matter.
        steepest: the factor where the loss falls fastest; None if it never falls.
        blow_up: the factor from which it rises beyond the start; None if it doesn't.
        noise: standard deviation of the losses at the beginning, from batch to batch.
    """

    start: float
    steepest: float | None
    blow_up: float | None
    noise: float = 0.0


def sweep_factors(steps: int = _STEPS, span: float = _SPAN) -> list[float]:
    """Return factors that grow from ``1 / span`` to ``span`` by the same ratio.

    Example:
        >>> sweep_factors(3, 100.0)
        [0.01, 1.0, 100.0]
    """
    return [span ** (2 * step / (steps - 1) - 1) for step in range(steps)]


def smoothed(losses: Sequence[float], keep: float = 0.7) -> list[float]:
    """Return the running mean with weights that fall by ``keep`` each step, without its bias.

    Example:
        >>> smoothed([1.0, 1.0, 4.0], 0.5)
        [1.0, 1.0, 2.7142857142857144]
    """
    total, weight, means = 0.0, 0.0, []
    for loss in losses:
        total, weight = keep * total + loss, keep * weight + 1
        means.append(total / weight)
    return means


def read_sweep(factors: Sequence[float], losses: Sequence[float]) -> Sweep:
    """Find where the loss falls fastest and where it blows up.

    It is smoothed by :func:`smoothed`. It has blown up where it isn't finite, or is above the
    start by as much as the start was above the least, but at least by a tenth of the start and by
    three standard deviations of the first tenth of losses, whose rates are too small to matter.
    How fast it falls is seen over five steps, and said of the one in their middle.

    Args:
        factors: of the rate, rising.
        losses: of the steps at these rates; may be fewer, if the run was ended.

    Example:
        >>> losses = [2.0] * 10 + [1.9, 1.7, 1.0, 0.6, 0.5, 0.5, 0.6, 5.0, 50.0]
        >>> sweep = read_sweep([2.0**step for step in range(19)], losses)
        >>> sweep.steepest, sweep.blow_up
        (16384.0, 262144.0)
    """
    first = max(5, len(factors) // 10)
    finite = losses[: next((i for i, x in enumerate(losses) if not math.isfinite(x)), len(losses))]
    if len(finite) <= first:
        start = sum(finite) / len(finite) if finite else math.nan
        blow_up = factors[len(finite)] if len(finite) < len(losses) else None
        return Sweep(start, None, blow_up)
    means = smoothed(finite)
    start, noise = mean(finite[:first]), stdev(finite[:first])
    least, end = start, len(means)
    for index in range(first, len(means)):
        least = min(least, means[index])
        if means[index] > start + max(start - least, 0.1 * abs(start), 3 * noise):
            end = index
            break
    blown = end < len(means) or len(finite) < len(losses)
    falls = {i - 2: means[i] - means[i - 5] for i in range(first, end)}
    falling = bool(falls) and least < start - max(0.02 * abs(start), 1.5 * noise)
    return Sweep(
        start=start,
        steepest=factors[min(falls, key=falls.__getitem__)] if falling else None,
        blow_up=factors[min(end, len(losses) - 1)] if blown else None,
        noise=noise,
    )


def progress(start: float, losses: Sequence[float]) -> float:
    """Return by how much the loss of the last quarter of a run is below the start.

    Minus infinity if a loss isn't finite, or there is none.

    Example:
        >>> progress(2.0, [2.0, 1.0, 1.0, 0.5])
        1.5
    """
    if not losses or not all(map(math.isfinite, losses)):
        return -math.inf
    last = losses[-max(1, len(losses) // 4) :]
    return start - sum(last) / len(last)


def judge(best: float, best_progress: float, own_progress: float) -> float:
    """Return the severity of a configured rate, from the progress at a better one.

    Args:
        best: the better rate, as a factor of the configured one.
        best_progress: of the loss at the better rate.
        own_progress: of the loss at the configured rate, in as many steps.

    Example:
        >>> judge(0.01, 2.0, -5.0), judge(300.0, 2.0, 0.1), judge(3.0, 2.0, 0.1)
        (1.0, 0.95, 0.0)
        >>> judge(10.0, 2.0, 0.1)  # few steps favor high rates
        0.25
    """
    if best_progress <= 0 or 1 / _FAR < best < _FAR:
        return 0.0
    share = max(own_progress / best_progress, 0.0)
    if share >= (_TOO_HIGH if best < 1 else _TOO_LOW):
        return 0.0
    return min(1 - share, _IDEA) if 1 < best < _SURELY_LOW else 1 - share


class ScaleRates(Callback):
    """Multiplies the configured rates by a factor of the step, and ends a run that blew up."""

    def __init__(self, factor: Callable[[int], float], limit: float = math.inf) -> None:
        self.factor, self.limit, self.losses = factor, limit, list[float]()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the rates."""
        if not hasattr(self, "_base"):
            self._base = [[base_rate(g) for g in o.param_groups] for o in trainer.optimizers]
        factor = self.factor(trainer.global_step)
        for optimizer, rates in zip(trainer.optimizers, self._base, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss, which an exception of the module's would lose."""
        loss = outputs["loss"] if isinstance(outputs, dict) and "loss" in outputs else math.nan
        self.losses.append(float(loss) * trainer.accumulate_grad_batches)
        if not math.isfinite(self.losses[-1]):
            trainer.should_stop = True


class RateRange(Probe):
    """Sweeps the rate, and trains for a while at the configured one and at those that promise."""

    name = "rate range"
    questions = ("rate",)
    share = 5.0

    def run(self, subject: Subject) -> list[Finding]:
        """Compare the configured rate with the range in which the loss falls."""
        if not subject.module.automatic_optimization:
            raise NotDoneError("the module optimizes by hand: its steps can't be swept")
        steps = subject.affordable(_STEPS, _LEAST, runs=1 + 3 * _CHECK)
        losses = self._sweep(subject, factors := sweep_factors(steps))
        if not losses or math.isnan(losses[0]):
            raise NotDoneError("the training step gives no loss that is a number")
        sweep = read_sweep(factors, losses)
        optimizers = subject.optimizers()
        rates = [base_rate(group) for one in optimizers for group in one.param_groups]
        rate, steps, runs = max(rates), round(_CHECK * steps), dict[float, float]()
        for factor in (1.0, *self._candidates(sweep)):
            reached = self._progress(subject, sweep.start, factor, steps)
            if reached is None:
                break
            runs[factor] = reached
        if not runs:
            raise NotDoneError("the time was over before the configured rate had its run")
        best = max(runs, key=runs.__getitem__)
        severity = judge(best, runs[best], runs[1.0])
        figure = self._figure(rate, sweep, runs, best, steps)
        data = {
            "rate": rate,
            "steepest_rate": None if sweep.steepest is None else rate * sweep.steepest,
            "blow_up_rate": None if sweep.blow_up is None else rate * sweep.blow_up,
            "start_loss": sweep.start,
            "progress": {f"{rate * factor:.2g}": value for factor, value in runs.items()},
        }
        if runs[best] <= max(0.02 * abs(sweep.start), sweep.noise):
            reason = "The loss falls at no rate: the rate isn't what is wrong."
            return [Finding(self.name, "rate", figure, reason, data)]
        if not severity:
            reason = "The configured rate lies where the loss falls about as fast as anywhere."
            return [Finding(self.name, "rate", figure, reason, data)]
        overlay, how = rate_overlay(subject.config, optimizers, rates, best)
        suggestion = f"learning rate {rounded(rate * best):g} instead of {rate:g}, {how}"
        high = "high: it undoes what it learns" if best < 1 else "low: training hardly moves"
        reason = f"The configured rate is too {high}, and a rate {_times(best)} makes progress."
        found = Finding(self.name, "rate", figure, reason, data, severity, suggestion, overlay)
        return [found]

    @staticmethod
    def _candidates(sweep: Sweep) -> list[float]:
        """Return the factors to try besides 1, the most promising first."""
        if sweep.steepest is not None:
            return [sweep.steepest, sweep.steepest / 5]
        return [] if sweep.blow_up is None else [sweep.blow_up / 30]

    @staticmethod
    def _sweep(subject: Subject, factors: Sequence[float]) -> list[float]:
        scale = ScaleRates(lambda step: factors[min(step, len(factors) - 1)])
        try:
            subject.train([scale], max_steps=len(factors))
        except NotDoneError:
            raise
        except Exception:  # a module may refuse what a much too high rate makes of its weights
            if not scale.losses:
                raise
        return scale.losses

    @staticmethod
    def _progress(subject: Subject, start: float, factor: float, steps: int) -> float | None:
        """Return the progress of a run at one rate; None if the time was over before its end."""
        scale = ScaleRates(lambda _: factor)
        try:
            if subject.train([scale], max_steps=steps).cut_off:
                return None
        except Exception:
            return -math.inf
        return progress(start, scale.losses)

    @staticmethod
    def _figure(
        rate: float, sweep: Sweep, runs: dict[float, float], best: float, steps: int
    ) -> str:
        def loss(factor: float) -> str:
            return f"{sweep.start - runs[factor]:.3g}"

        parts = [f"rate {rate:g}: loss {sweep.start:.3g} → {loss(1.0)} in {steps} steps"]
        if best != 1.0:
            parts.append(f"rate {rate * best:.2g}: → {loss(best)}")
        if sweep.steepest is not None:
            parts.append(f"falls fastest near {rate * sweep.steepest:.2g}")
        if sweep.blow_up is not None:
            parts.append(f"blows up near {rate * sweep.blow_up:.2g}")
        return "; ".join(parts)


def _times(factor: float) -> str:
    return f"{rounded(factor):g} times as high" if factor > 1 else f"{1 / factor:.0f} times lower"
