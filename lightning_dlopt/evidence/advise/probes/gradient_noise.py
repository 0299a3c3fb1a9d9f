"""Is the batch far larger or smaller than the gradient noise scale?"""

import math
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_dlopt.core.errors import ArgumentError, one_line
from lightning_dlopt.core.parameters import select_parameters
from lightning_dlopt.core.sample_count import count_samples
from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError, Question
from lightning_dlopt.evidence.advise.noise_scale import NoiseScale, noise_scale
from lightning_dlopt.evidence.advise.overlays import set_key
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.subject import Subject

#: Gradients that are compared, at least and at most.
_FEWEST, _MOST = 4, 24
#: Optimizer steps before them, and the bytes that batches for both may take.
_WARM_UP, _BYTES = 40, 2**28
#: Values of all gradients together; of larger ones a part is taken, evenly spread.
_VALUES = 2**26
#: How many times larger or smaller than the noise scale a batch is noteworthy.
_FACTOR = 10


class GradientNoise(Probe):
    """Compares the gradients of several batches at the same weights, early in training.

    The module is trained for up to 40 steps first, on other batches: at the initial weights all
    samples pull in the same direction, and on samples that have been trained on there is less
    left to pull. The noise scale grows in training, so it is no more than the order of magnitude
    of what a batch should be.
    """

    name: ClassVar[str] = "gradient noise scale"
    questions: ClassVar[tuple[Question, ...]] = ("optimizer",)
    share: ClassVar[float] = 0.7

    def run(self, subject: Subject) -> list[Finding]:
        """Return one finding."""
        if not subject.module.automatic_optimization:
            raise NotDoneError("under manual optimization a step may have any number of gradients")
        accumulated = 1 if subject.trainer is None else subject.trainer.accumulate_grad_batches
        batches = subject.batches(_affordable(subject, (_WARM_UP + _MOST) * accumulated))
        try:
            sizes = [count_samples(batch) for batch in batches]
        except ArgumentError as error:
            raise NotDoneError(one_line(error)) from error
        # an incomplete last batch would have another noise
        batches = [one for one, size in zip(batches, sizes, strict=True) if size == sizes[0]]
        compared = min(_MOST, len(batches) // 2 // accumulated)
        if compared < _FEWEST:
            raise NotDoneError(
                f"an epoch has {len(batches)} batches of {sizes[0] if sizes else 0} samples; "
                f"{2 * _FEWEST * accumulated} are needed"
            )
        first = len(batches) - compared * accumulated
        training = subject.train(
            max_steps=_WARM_UP,
            max_seconds=subject.seconds_left() * 0.6,
            batches=batches[:first],
        )
        collected = CollectGradients()
        subject.train(
            [collected],
            max_steps=compared,
            batches=batches[first:],
            module=training.module,
            hold_weights=True,
        )
        if len(collected.gradients) < _FEWEST:
            raise NotDoneError(
                f"there was time for {len(collected.gradients)} gradients; {_FEWEST} are needed"
            )
        batch = sizes[0] * accumulated
        found = noise_scale(torch.stack(collected.gradients), batch)
        return [self._finding(subject, found, batch, len(collected.gradients), training.steps)]

    def _finding(
        self, subject: Subject, found: NoiseScale, batch: int, count: int, steps: int
    ) -> Finding:
        data = {**found._asdict(), "batch_size": batch, "gradients": count, "after_steps": steps}
        bounds = f"at least {_round(found.low)}"
        if math.isfinite(found.high):
            bounds = f"{_round(found.low)} to {_round(found.high)}"
        figure = f"noise scale {bounds} samples after {steps} steps; a step has {batch}"
        small = found.low > batch * _FACTOR
        if not small and not found.high * _FACTOR < batch:
            return Finding(
                self.name,
                "optimizer",
                figure,
                "The batch is within a factor of 10 of the noise scale, or that can't be told.",
                data,
            )
        factor = min(4.0, found.low / batch) if small else max(0.25, found.high / batch)
        size = 2 ** round(math.log2(batch * factor))
        reason = (
            "Gradients are mostly noise: larger batches need fewer steps for nearly the same "
            "number of samples, which pays where a larger batch takes no more time."
            if small
            else "Batches give nearly the same gradient each time: smaller ones make the same "
            "progress with fewer samples, which is more steps in the same time."
        )
        overlay, how = batch_overlay(subject, size)
        return Finding(
            self.name,
            "optimizer",
            figure,
            reason,
            data,
            0.1 if small else 0.2,
            f"{'larger' if small else 'smaller'} batches, such as {size} samples{how}, and the "
            "rate tuned anew",
            overlay,
            "batch_size",
        )


class CollectGradients(Callback):
    """Keeps the gradient of each optimizer step, flattened.

    Attributes:
        gradients: one for each step, of no more values than memory allows.
    """

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Keep it."""
        trained = [parameter for _, parameter in select_parameters(pl_module, "all")]
        total = sum(parameter.numel() for parameter in trained)
        stride = -(-total * _MOST // _VALUES)
        parts = [
            torch.zeros_like(one).flatten()[::stride]
            if one.grad is None
            else one.grad.detach().to_dense().flatten()[::stride].clone()
            for one in trained
        ]
        self.gradients.append(torch.cat(parts).float().cpu())


def batch_overlay(subject: Subject, size: int) -> tuple[dict[str, Any] | None, str]:
    """Return the overlay that gives each step ``size`` samples, and how in words.

    Larger ones come by accumulation if the configuration has no ``batch_size`` of the data.
    """
    data = subject.config.get("data") or {}
    path: tuple[str, ...] = ("data", "init_args") if "class_path" in data else ("data",)
    arguments = data.get("init_args") or {} if "class_path" in data else data
    accumulated = 1 if subject.trainer is None else subject.trainer.accumulate_grad_batches
    current = arguments.get("batch_size", getattr(subject.data, "batch_size", None))
    if data and isinstance(current, int) and current > 0:
        share = max(size // accumulated, 1)
        return set_key((*path, "batch_size"), share), f" (batch_size={share})"
    micro = count_samples(subject.batches(1)[0])
    if size >= 2 * micro:
        steps = size // micro
        overlay = set_key(("trainer", "accumulate_grad_batches"), steps)
        return overlay, f" (accumulate_grad_batches={steps})"
    return None, " (in the loader: no key of the configuration is known)"


def _affordable(subject: Subject, wanted: int) -> int:
    """Return how many batches may be kept at once."""
    first = subject.batches(1)
    size = sum(_bytes(batch) for batch in first)
    return min(wanted, max(_BYTES // max(size, 1), 2 * _FEWEST))


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        value = vars(value).values() if hasattr(value, "__dict__") else ()
    return sum(_bytes(item) for item in value)


def _round(value: float) -> str:
    """Return a number with two digits at most."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"
