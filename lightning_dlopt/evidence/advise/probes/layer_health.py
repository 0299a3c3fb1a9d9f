"""Do all layers move at a sound pace, and do all units do something?"""

import math
from statistics import median
from typing import Any, ClassVar

from lightning.pytorch import LightningModule

from lightning_dlopt.core.named_modules import listing
from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError, Question
from lightning_dlopt.evidence.advise.overlays import rate_overlay
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.subject import Subject
from lightning_dlopt.evidence.advise.trained_copy import check_automatic, run_training_step
from lightning_dlopt.evidence.advise.training import Training, base_rate
from lightning_dlopt.evidence.advise.unit_activity import Activity, WatchUnits
from lightning_dlopt.evidence.advise.update_ratios import WatchUpdates

_STEPS, _BATCHES = 100, 16
#: The ratio of update to weights, usually about 0.001, from where it is alarming: of the median
#: layer late in the run, at most, and late in the run again. Adam's first steps lie above the usual
#: ones whatever the network, so the limits leave much room.
_FAST, _WHOLE, _SLOW = 0.1, 1.0, 1e-6
#: The share of a layer's units that is alarming if they say nothing, and of all units.
_OF_LAYER, _OF_ALL = 0.5, 0.25
#: A layer of fewer units says too little.
_FEWEST = 4


class LayerHealth(Probe):
    """Watches a short run: how far each step moves each layer, and which units say nothing.

    Units are looked at before the first step and after the last, on up to 16 batches, in training
    mode. One that gives the same value for every sample is dead: of a ReLU that is 0, and no
    gradient passes it; of other functions it is saturated.
    """

    name: ClassVar[str] = "layers and units"
    questions: ClassVar[tuple[Question, ...]] = ("rate", "generalization")
    share: ClassVar[float] = 0.8

    def run(self, subject: Subject) -> list[Finding]:
        """Return a finding on the updates and one on the units."""
        check_automatic(subject.module)
        batches = subject.batches(_BATCHES)
        begin = subject.train(max_steps=0).module
        before = watch_units(begin, batches[: max(len(batches) // 2, 1)])
        watch = WatchUpdates()
        training = subject.train(
            [watch], max_steps=_STEPS, max_seconds=subject.seconds_left() * 0.7
        )
        if not training.steps:
            raise NotDoneError("there was no time for a step of training")
        subject.cut_off = None  # fewer steps are told with the figures
        after = watch_units(training.module, batches)
        return [
            self._updates(subject, watch, training),
            self._units(subject, before, after, training),
        ]

    def _updates(self, subject: Subject, watch: WatchUpdates, training: Training) -> Finding:
        ratios, largest = watch.medians(), watch.largest()
        if not ratios:
            return Finding(
                self.name, "rate", "no layer has weights", "There is nothing to compare."
            )
        fastest = max(ratios, key=lambda name: ratios[name])
        slowest = min(ratios, key=lambda name: ratios[name])
        most = max(largest, key=lambda name: largest[name])
        data: dict[str, Any] = {"ratios": ratios, "largest": largest, "steps": training.steps}
        figure = (
            f"a step moves the weights by {ratios[slowest]:.1g} ({slowest}) to "
            f"{ratios[fastest]:.1g} ({fastest}) of their size, after {training.steps} steps, and "
            f"by {largest[most]:.1g} at most ({most})"
        )
        usually, at_most = _middle(ratios), _middle(largest)
        if not math.isfinite(at_most) or at_most > _WHOLE or usually > _FAST:
            excess = max(usually / _FAST, at_most / _WHOLE, 1.0) * 10
            factor = 10.0 ** -decades(excess) if math.isfinite(excess) else 0.01
            reason = "steps as large as the weights wipe out what they were initialized to."
        elif 0 < usually < _SLOW:
            factor = 100.0
            reason = "so small ones take as many times longer to get anywhere."
        else:
            return self._still(largest, figure, data)
        rates = [base_rate(group) for one in training.optimizers for group in one.param_groups]
        overlay, how = rate_overlay(subject.config, training.optimizers, rates, factor)
        return Finding(
            self.name,
            "rate",
            figure,
            f"Steps are usually about 0.001 of the weights; {reason}",
            data,
            0.4 if factor > 1 else 0.6,
            f"multiply the learning rate by {factor:g} ({how})",
            overlay,
            "faster" if factor > 1 else "slower",
        )

    def _still(self, largest: dict[str, float], figure: str, data: dict[str, Any]) -> Finding:
        """Return the finding on layers that don't move, or that there are none."""
        still = [name for name, ratio in largest.items() if ratio == 0]
        if not still:
            return Finding(
                self.name,
                "rate",
                figure,
                "That is within what is seen in sound training, usually about 0.001.",
                data,
            )
        return Finding(
            self.name,
            "rate",
            f"{len(still)} of {len(largest)} layers don't move: {listing(still)}",
            "Their weights aren't frozen, but get no gradient, or no optimizer has them.",
            data,
            0.4,
            "find out whether the loss depends on them and the optimizer has them, or freeze them",
            arm="still_layers",
        )

    def _units(
        self,
        subject: Subject,
        before: list[Activity],
        after: list[Activity],
        training: Training,
    ) -> Finding:
        layers = [one for one in after if len(one.constant) >= _FEWEST]
        if not layers:
            return Finding(
                self.name,
                "generalization",
                "no activation functions seen",
                "Units are told by torch's activation functions, outside of compiled parts.",
                arm="units",
            )
        total = sum(len(one.constant) for one in layers)
        dead = sum(int(one.constant.sum()) for one in layers)
        at_first = {one.layer: one.dead for one in before}
        data: dict[str, Any] = {
            "dead": {one.layer: one.dead for one in layers},
            "dead_at_first": at_first,
            "samples": min(one.samples for one in layers),
            "steps": training.steps,
        }
        worst = max(layers, key=lambda one: one.dead)
        figure = (
            f"{dead} of {total} units say the same for every sample, at most {worst.dead:.0%} of a "
            f"layer ({worst.layer}), after {training.steps} steps"
        )
        if worst.dead < _OF_LAYER and dead < total * _OF_ALL:
            return Finding(
                self.name,
                "generalization",
                figure,
                "A few idle units are usual.",
                data,
            )
        from_start = at_first.get(worst.layer, 0.0) >= worst.dead / 2
        what = "ReLU units that are 0 get no gradient" if worst.rectifier else "Saturated units"
        severity = min(0.4 + 0.5 * max(worst.dead, dead / total), 0.9)
        if from_start:
            return Finding(
                self.name,
                "generalization",
                figure + ", most of them before the first step",
                f"{what} and never recover; they were idle from the start, so the initial weights "
                "and biases or the scale of the inputs are at fault.",
                data,
                severity,
                f"look at the initial biases before {worst.layer} and at the scale of its inputs; "
                "a normalization layer before it, or LeakyReLU, keeps units alive",
                arm="units",
            )
        rates = [base_rate(group) for one in training.optimizers for group in one.param_groups]
        overlay, how = rate_overlay(subject.config, training.optimizers, rates, 0.1)
        return Finding(
            self.name,
            "rate",
            figure + ", most of them not before the first",
            f"{what} and never recover; too large steps have pushed them there.",
            data,
            severity,
            f"a tenth of the learning rate ({how}), or a schedule with warm-up",
            overlay,
            "units",
        )


def watch_units(module: LightningModule, batches: list[Any]) -> list[Activity]:
    """Return what the units of a module give out in its training step, in training mode."""
    with WatchUnits(module) as watch:
        for batch in batches:
            watch.start_batch()
            run_training_step(module, [batch], training=True)
    return watch.activities()


def decades(factor: float) -> int:
    """Return the least number of powers of ten that reaches a factor, at most 4.

    Example:
        >>> decades(15), decades(0.5)
        (2, 0)
    """
    return next(number for number in range(5) if factor <= 10**number or number == 4)


def _middle(ratios: dict[str, float]) -> float:
    """Return the median layer's ratio; NaN if there is one among them."""
    values = list(ratios.values())
    return math.nan if any(map(math.isnan, values)) else median(values)
