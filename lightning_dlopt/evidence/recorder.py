"""What a comparison notes of a run while it trains."""

import statistics
import time
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_dlopt.core.errors import UserError
from lightning_dlopt.evidence.fingerprints import HeldOut, order_fingerprint, weights_fingerprint
from lightning_dlopt.evidence.runs import Point

#: Batches at the beginning that don't count for the step time, and how many must follow.
WARM_UP, ENOUGH = 10, 10
#: Batches of each epoch whose samples are noted.
_NOTED = 2


class MetricError(UserError):
    """Validation doesn't log what the study compares."""


class Recorder(Callback):
    """Notes a run's curve, its times and its data; the first of all callbacks.

    Args:
        metric: name of what validation must log.
        rate_factor: by which every learning rate is multiplied.

    Attributes:
        curve: the validations so far.
        batches_done: training batches so far.
        validated: what was logged by the end of the last validation.
        validated_weights: fingerprint of the weights that it was made with.
        curve_closed: whether further validations aren't part of the curve.
    """

    def __init__(self, metric: str, rate_factor: float = 1.0) -> None:
        self.metric = metric
        self.rate_factor = rate_factor
        self.curve: list[Point] = []
        self.batches_done = 0
        self.curve_closed = False
        self.validated: dict[str, float] = {}
        self.validated_weights = ""
        self._step_seconds: list[float] = []
        self._clock = _Clock()
        self._batches = 0
        self._held_out = HeldOut()
        self._held_out_known = False

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self._clock.seconds()

    @property
    def step_ms(self) -> float | None:
        """Median milliseconds of a batch after the warm-up, None if there are too few."""
        later = self._step_seconds[WARM_UP:]
        return 1000 * statistics.median(later) if len(later) >= ENOUGH else None

    @property
    def warm_up_seconds(self) -> float:
        """What the first batches took longer than as many later ones."""
        if self.step_ms is None:
            return 0.0
        return sum(self._step_seconds[:WARM_UP]) - WARM_UP * self.step_ms / 1000

    @property
    def batches(self) -> str:
        """Fingerprint of the first training batches of each epoch."""
        return f"{self._batches:08x}" if self.batches_done else ""

    @property
    def held_out(self) -> str:
        """Fingerprint of what is validated on, and its number of samples."""
        return str(self._held_out)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Multiply the rates before any schedule of a callback has seen them."""
        if self.rate_factor != 1.0:
            scale_rates(trainer, self.rate_factor)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._clock.start()
        self._last = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note which samples come first in an epoch."""
        if batch_idx < _NOTED:
            before = time.perf_counter()
            self._batches = order_fingerprint(batch, self._batches)
            self._pass_over(time.perf_counter() - before)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note how long it took."""
        now = time.perf_counter()
        self._step_seconds.append(now - self._last)
        self._last = now
        self.batches_done += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock; what training has logged by the metric's name isn't validation's."""
        self._paused = time.perf_counter()
        if not trainer.sanity_checking:
            trainer.callback_metrics.pop(self.metric, None)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note what is validated on, the first time."""
        if not trainer.sanity_checking and not self._held_out_known:
            self._held_out.add(batch, batch_idx, casts=_casts(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the metric, and let the clock go on."""
        if trainer.sanity_checking:
            return
        self.validated = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self.curve_closed:
            return
        self._held_out_known = True
        value = self.value_in(trainer)
        self.validated_weights = weights_fingerprint(pl_module)
        self._pass_over(time.perf_counter() - self._paused)
        seconds = round(self.seconds, 3)
        self.curve.append(Point(trainer.global_step, trainer.current_epoch + 1, seconds, value))

    def value_in(self, trainer: Trainer) -> float:
        """Return the metric that was just logged.

        Raises:
            MetricError: if it wasn't.
        """
        logged = trainer.callback_metrics
        if self.metric not in logged:
            there = ", ".join(sorted(logged)) or "nothing"
            raise MetricError(f"validation logs no {self.metric!r}; logged are: {there}")
        return float(logged[self.metric])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock for good."""
        self._clock.stop()

    def _pass_over(self, seconds: float) -> None:
        self._clock.pass_over(seconds)
        if self._clock.runs:
            self._last += seconds


class _Clock:
    """Counts seconds between a start and a stop, without what is passed over."""

    def __init__(self) -> None:
        self._begin: float | None = None
        self._total: float | None = None
        self._left_out = 0.0

    @property
    def runs(self) -> bool:
        return self._begin is not None and self._total is None

    def start(self) -> None:
        self._begin = time.perf_counter()

    def pass_over(self, seconds: float) -> None:
        if self.runs:
            self._left_out += seconds

    def stop(self) -> None:
        self._total = self.seconds()

    def seconds(self) -> float:
        if self._begin is None or self._total is not None:
            return self._total or 0.0
        return time.perf_counter() - self._begin - self._left_out


def scale_rates(trainer: Trainer, factor: float) -> None:
    """Multiply all learning rates by ``factor``: of the optimizers, and in their schedulers."""
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            for name in ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr"):
                if group.get(name) is not None:
                    group[name] = group[name] * factor
    configured = [config.scheduler for config in trainer.lr_scheduler_configs]
    for scheduler in dict.fromkeys(one for each in configured for one in _with_inner(each)):
        for name in ("base_lrs", "max_lrs", "min_lrs"):
            rates = getattr(scheduler, name, None)
            if isinstance(rates, list):
                setattr(scheduler, name, [rate * factor for rate in rates])
        if hasattr(scheduler, "eta_min"):
            scheduler.eta_min *= factor


def _with_inner(scheduler: Any) -> Iterator[Any]:
    """Yield a scheduler and those that it is made of, as torch's SequentialLR is."""
    yield scheduler
    for inner in getattr(scheduler, "_schedulers", []):
        yield from _with_inner(inner)


def _casts(trainer: Trainer) -> bool:
    """Return whether the Trainer gives the module's steps other floats than the data hold."""
    precision = str(trainer.precision)
    return precision.endswith("-true") and precision != "32-true"
