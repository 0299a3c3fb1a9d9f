"""The learning rate falls when a metric stops improving."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_dlopt.core.checks import check_choice, check_integer, check_number, check_text
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span
from lightning_dlopt.schedules.base import Schedule
from lightning_dlopt.schedules.factor_lr import Curve


class PlateauLR(Schedule):
    """Multiply the learning rate by ``factor`` when a logged metric has stopped improving.

    The decision is torch's ``ReduceLROnPlateau`` (relative threshold). A metric logged in
    validation is looked at after each validation, another one after each training epoch; on
    several processes it is averaged, so that all of them decide alike.

    Source: A. Krizhevsky, I. Sutskever, G. Hinton, ImageNet Classification with Deep Convolutional
    Neural Networks, 2012, who did it by hand when the validation error stopped improving.

    When:
        The length of the run is open, and the metric is smooth enough to show that progress has
        stopped.

    When not:
        The metric is noisy, so that drops come by chance, or looked at too seldom: each drop takes
        ``patience`` looks without progress first, which short runs haven't got.

    Args:
        monitor: the name the metric is logged under.
        factor: what the rate is multiplied by, in (0, 1).
        patience: how many looks without improvement are let pass.
        mode: whether a good metric is small (``"min"``) or large (``"max"``).
        threshold: the smallest relative change that counts as an improvement, at least 0.
        floor: the factor of the initial rate that is not gone below, in [0, 1).
        warmup: see :class:`Schedule`.
        warmup_start: see :class:`Schedule`.
        replace: see :class:`Schedule`.

    Raises:
        TechniqueError: at the end of the first epoch (and after the first validation, if there
            is one), if no metric of that name was logged; the message lists those that were.

    The checkpoint keeps the best value, the number of looks since, and the factor reached.

    Example:
        >>> PlateauLR("val_loss", factor=0.5)
        PlateauLR(monitor='val_loss', factor=0.5)
    """

    may_be_constant: ClassVar[bool] = True

    def __init__(
        self,
        monitor: str,
        factor: float = 0.1,
        patience: int = 5,
        mode: Literal["min", "max"] = "min",
        threshold: float = 1e-4,
        floor: float = 0.0,
        warmup: Span = 0,
        warmup_start: float = 0.0,
        replace: bool = False,
    ) -> None:
        super().__init__(warmup, warmup_start, replace)
        self.monitor = check_text(self, "monitor", monitor)
        self.factor = check_number(self, "factor", factor, "(0, 1)")
        self.patience = check_integer(self, "patience", patience, "[0, inf)")
        choice = check_choice(self, "mode", mode, ("min", "max"))
        self.mode = cast(Literal["min", "max"], choice)
        self.threshold = check_number(self, "threshold", threshold, "[0, inf)")
        self.floor = check_number(self, "floor", floor, "[0, 1)")
        self._start_tracking()

    def _start_tracking(self) -> None:
        # torch's scheduler keeps count on a rate of 1, which is then the factor of all the others
        self._tracked = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        self._tracker = ReduceLROnPlateau(
            self._tracked,
            mode=self.mode,
            factor=self.factor,
            patience=self.patience,
            threshold=self.threshold,
            min_lr=self.floor,
            eps=0.0,
        )
        self._from_validation = False
        self._validated = False
        self._seen = False
        self._before_validation: Any = None

    def curve(self, run: RunLength, begin: int) -> Curve:
        """Return the factor that the plateaus so far have led to."""
        return lambda _: float(self._tracked.param_groups[0]["lr"])

    def _look(self, trainer: Trainer, value: torch.Tensor) -> None:
        value = trainer.strategy.reduce(value.detach().float(), reduce_op="mean")
        self._seen = True
        self._tracker.step(float(value))
        for scheduler in self._schedulers:
            scheduler.refresh()

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with nothing seen; look after the module has logged what it logs of an epoch."""
        super().prepare(trainer, pl_module)
        self._start_tracking()

        def wrap(original: Callable[[], None]) -> Callable[[], None]:
            def on_train_epoch_end() -> None:
                original()
                self._look_after_epoch(trainer)

            return on_train_epoch_end

        # a callback's own hook runs before the module's
        self.patch(pl_module, "on_train_epoch_end", wrap)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the value that is there already: validation may not be what logs it."""
        self._before_validation = trainer.callback_metrics.get(self.monitor)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at a metric that this validation has logged."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._validated = True
        value = trainer.callback_metrics.get(self.monitor)
        if value is not None and value is not self._before_validation:
            self._from_validation = True
            self._look(trainer, value)

    def _look_after_epoch(self, trainer: Trainer) -> None:
        if self._from_validation:
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is not None:
            self._look(trainer, value)
        elif self._validated or not trainer.enable_validation:
            names = ", ".join(sorted(trainer.callback_metrics)) or "none"
            raise self.refuse(
                f"no metric named {self.monitor!r} was logged in training or validation; "
                f"there are: {names}"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if the run was over before the first validation."""
        if not self._seen and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.warn_no_effect(f"no metric named {self.monitor!r} was logged in this run")

    def extra_state(self) -> dict[str, Any]:
        """Keep what has been seen."""
        return {
            **super().extra_state(),
            "best": float(self._tracker.best),
            "looks_without_improvement": int(self._tracker.num_bad_epochs),
            "reached": float(self._tracked.param_groups[0]["lr"]),
            "from_validation": self._from_validation,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what had been seen."""
        super().load_state_dict(state_dict)
        self._tracker.best = state_dict["best"]
        self._seen = math.isfinite(state_dict["best"])
        self._tracker.num_bad_epochs = state_dict["looks_without_improvement"]
        self._tracked.param_groups[0]["lr"] = state_dict["reached"]
        self._from_validation = state_dict["from_validation"]
