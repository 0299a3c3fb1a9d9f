"""One-batch overfit: what can't learn one batch by heart learns nothing from many."""

import math
from collections.abc import Sequence
from typing import Any

from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError, NoTimeError
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.probes.rate_range import ScaleRates
from lightning_dlopt.evidence.advise.subject import Subject

_STEPS, _LEAST = 100, 30
#: Factors of the configured rate, until at one the batch is learned: a bad rate is another finding.
_FACTORS = (1.0, 0.1, 10.0, 0.01, 100.0)
#: The share of the loss that must go, and the share below which nothing is learned at all.
_LEARNED, _NOTHING = 0.3, 0.02


def drop(losses: Sequence[float]) -> float:
    """Return the largest part of the first loss that has gone at any later step.

    Means of three steps are compared, so that a lucky one counts less; dropout makes them vary.
    Of losses that begin below 0 it is the change in units of the first; 0 if none is finite.

    Example:
        >>> drop([2.0, 2.0, 2.0, 1.0, 0.5, 0.5, 0.5])
        0.75
    """
    finite = list(losses[: next((i for i, x in enumerate(losses) if not math.isfinite(x)), None)])
    if len(finite) < 2 or finite[0] == 0:
        return 0.0
    means = [sum(finite[i : i + 3]) / 3 for i in range(1, len(finite) - 2)] or finite[-1:]
    return max(0.0, (finite[0] - min(means)) / abs(finite[0]))


class OneBatch(Probe):
    """Trains on the first batch again and again, without what regularizes or augments."""

    name = "one-batch overfit"
    questions = ("generalization",)
    share = 1.0

    def run(self, subject: Subject) -> list[Finding]:
        """See whether the loss of one batch goes."""
        batches = subject.batches(1)
        if not batches:
            raise NotDoneError("there is no training batch")
        steps = subject.affordable(_STEPS, _LEAST)
        drops: dict[float, float] = {}
        first = last = math.nan
        factors = _FACTORS if subject.module.automatic_optimization else _FACTORS[:1]
        for factor in factors:
            if drops and not subject.check_time("trying other rates"):
                break
            scale = ScaleRates(lambda _, factor=factor: factor)  # type: ignore[misc]
            training = subject.train([scale], steps, batches=batches, plain=True)
            losses = training.losses
            if training.cut_off and drop(losses) < _LEARNED:
                break  # more steps might have done it
            if not losses or math.isnan(losses[0]):
                raise NotDoneError("the training step gives no loss that is a number")
            drops[factor] = drop(losses)
            if drops[factor] == max(drops.values()):
                first, last = losses[0], losses[0] - drops[factor] * abs(losses[0])
            if drops[factor] >= _LEARNED:
                break
        if len(drops) < len(factors) and max(drops.values(), default=0.0) < _LEARNED:
            tried = ", ".join(f"{factor:g}" for factor in drops) or "none"
            raise NoTimeError(
                f"a batch that isn't learned by heart says nothing before runs at all of "
                f"{', '.join(f'{factor:g}' for factor in factors)} times the rate, and there was "
                f"time for {tried}: give a longer budget"
            )
        best = max(drops, key=drops.__getitem__)
        figure = f"loss of one batch {first:.3g} → {last:.3g} in {steps} steps"
        if best != 1.0:
            figure += f" at {best:g} times the rate"
        data: dict[str, Any] = {"start_loss": first, "end_loss": last, "steps": steps}
        data["drop_by_rate_factor"] = {f"{factor:g}": value for factor, value in drops.items()}
        if drops[best] >= _LEARNED:
            reason = "The module can learn a batch by heart: loss, labels and network fit together."
            return [Finding(self.name, "generalization", figure, reason, data)]
        nothing = drops[best] < _NOTHING
        frozen = [not p.requires_grad for p in subject.module.parameters()]
        data["frozen_parameters"] = sum(frozen)
        hint = f" ({sum(frozen)} of {len(frozen)} parameters are frozen)" if any(frozen) else ""
        return [
            Finding(
                self.name,
                "generalization",
                figure,
                f"The module {'learns nothing of' if nothing else 'hardly learns'} one batch at "
                f"rates from {min(drops):g} to {max(drops):g} times its own{hint}, so no optimizer "
                "or regularizer can help before that is mended.",
                data,
                1.0 if nothing else 0.7,
                "look for a broken loss, labels that don't belong to the inputs, or frozen layers",
            )
        ]
