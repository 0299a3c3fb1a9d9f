"""An exponential moving average of the weights, which is validated and kept."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer

from lightning_dlopt.core.checks import check_integer, check_number
from lightning_dlopt.core.errors import ArgumentError, CheckpointError
from lightning_dlopt.core.replaced import Replaced
from lightning_dlopt.core.resume import SavedTechnique
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span, parse_span
from lightning_dlopt.core.strategies import strategy_kind
from lightning_dlopt.core.technique import Technique
from lightning_dlopt.optimizers.module_average import ModuleAverage
from lightning_dlopt.optimizers.rival_averages import refuse_lightnings_averages


class EMA(Technique):
    """Keep an exponential moving average of the weights, and validate and end with it.

    Training itself goes on as without it. After every step the average becomes ``decay * average
    + (1 - decay) * weights``; the first time it is a copy. Validation runs with the averaged
    weights, checkpoints have them in ``state_dict`` (so that ``load_from_checkpoint`` gives them),
    and after training the module keeps them. The average reaches back ``1 / (1 - decay)`` steps
    or so, and smooths their noise as a falling learning rate does.

    Source: B. T. Polyak, A. B. Juditsky, Acceleration of Stochastic Approximation by Averaging,
    1992, for averaging; the exponential form as in A. Tarvainen, H. Valpola, Mean Teachers Are
    Better Role Models, 2017, arXiv:1703.01780. It does what Lightning's ``EMAWeightAveraging``
    does, with all tensors in one call, without a second module, and also in weights-only
    checkpoints; and whole-number buffers, such as a count of batches, are left as they are.

    Buffers of floating point, such as the statistics of batch norms, are averaged like weights;
    elements that aren't finite (a mask of -inf) and buffers of a new shape are copied. What is
    written into a buffer in validation stays, and becomes its average. The average has the
    weights' precision: where these have 16 bits, a ``decay`` near 1 rounds to no change at all.
    Under DDP each process keeps its own average, of equal weights. In the module's own
    ``on_validation_epoch_end``, unlike in ``validation_step``, the current weights are back.

    When:
        The rate is still high at the end, and validation jumps from one check to the next; models
        whose samples or pseudo-labels should be steady.

    When not:
        The rate falls to 0: the last weights hardly jump then, and the average only lags behind.
        Nor in runs that aren't many times ``1 / (1 - decay)`` steps long.

    Args:
        decay: how much of the average stays at each update, in [0, 1); 0 does nothing.
        every: after how many optimizer steps it is updated. Under manual optimization a batch
            counts as one step.
        start: span of training before the first update; until then nothing is averaged.

    Raises:
        ArgumentError: if a value is outside its range.
        ArgumentTypeError: if an argument has another type.
        TechniqueError: before the first step, if the strategy shards the weights.
        ConflictError: beside :class:`ScheduleFree`, or beside Lightning's weight averaging.

    The checkpoint keeps the arguments and the number of steps, the averaged weights in
    ``state_dict`` and the current ones in ``current_model_state``, where Lightning's callback has
    them; one that is saved after training has the current ones in this technique's state. To
    resume training, give this technique again: it alone knows of the current weights. A run with
    other techniques of this package refuses such a checkpoint; a Trainer without any goes on from
    the averaged weights, after Lightning's warning that a callback is missing.

    Example:
        >>> EMA(0.999, start="10%")
        EMA(decay=0.999, start='10%')
    """

    exclusive: ClassVar[str | None] = "weight average"
    required_on_resume: ClassVar[bool] = True

    def __init__(self, decay: float, every: int = 1, start: Span = 0) -> None:
        self.decay = check_number(self, "decay", decay, "[0, 1)")
        self.every = check_integer(self, "every", every, "[1, inf)")
        self._start = parse_span(start, self, "start")
        self.start = start
        self._forget()

    def _forget(self) -> None:
        self._average = ModuleAverage()
        self._steps = 0
        self._step_seen = 0
        self._begin = 0
        self._is_over = False

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what it can't work with, and see to the checkpoints."""
        self._forget()
        refuse_lightnings_averages(self, trainer)
        if strategy_kind(trainer) not in ("single", "replicated"):
            raise self.refuse(
                f"{type(trainer.strategy).__name__} shards the weights, and an average of shards "
                "can't be saved: use strategy='ddp' or a single device"
            )

        def around_save(save: Callable[..., None]) -> Callable[..., None]:
            def with_average(checkpoint: dict[str, Any]) -> None:
                self._put_into(checkpoint, pl_module)
                save(checkpoint)

            return with_average

        # the module's hook, since a weights-only checkpoint calls no callback's
        if self.decay > 0:
            self.patch(pl_module, "on_save_checkpoint", around_save)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resolve when to start, now that the length of the run is known."""
        run = RunLength.of(trainer, automatic=pl_module.automatic_optimization)
        try:
            self._begin = self._start.steps(run)
        except ArgumentError as error:
            raise ArgumentError(f"{self!r}: {error}") from error
        self._step_seen = trainer.global_step
        if self.decay == 0:
            self.warn_no_effect("decay is 0, so that the average is the weights themselves")
        elif run.total is not None and self._begin >= run.total and not run.trial:
            self.warn_no_effect(f"start is step {self._begin}, and the run has {run.total} steps")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Notice at each epoch's start what has become of the module's tensors."""
        if self.decay > 0 and (batch_idx == 0 or not self._average.is_followed):
            self._average.follow(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average if a step was made."""
        step = trainer.global_step
        if step == self._step_seen or self.decay == 0:
            return
        self._step_seen = step
        since, self._steps = self._steps - self._begin, self._steps + 1
        if since < 0 or since % self.every:
            return
        if self._average.tensors:
            self._average.update(self.decay)
        else:
            self._average.begin(pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the averaged weights into the module."""
        if not self._is_over:
            self._average.swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the current weights back."""
        if not self._is_over:
            self._average.swap(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the averaged weights in the module."""
        self._average.swap(pl_module)

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop averaging; a checkpoint may be saved yet."""
        self._average.let_go()
        self._is_over = True

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Put the current weights back, if it was during validation, and stop averaging."""
        if self._average.is_in_module and not self._is_over:
            self._average.swap(pl_module)
        super().on_exception(trainer, pl_module, exception)

    def parameters_replaced(
        self, trainer: Trainer, pl_module: LightningModule, replaced: Replaced
    ) -> None:
        """Cut the averages, too."""
        self._average.cut(pl_module, replaced)

    def extra_state(self) -> dict[str, Any]:
        """Keep the steps, and the other weights if nothing else in the checkpoint has them."""
        other = dict(self._average.tensors) if self._is_over else {}
        in_module = self._average.is_in_module
        return {"steps": self._steps, "other": other, "other_is_current": in_module}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up the count of steps."""
        self._steps = state_dict["steps"]

    def check_resume(self, saved: list[SavedTechnique]) -> None:
        """Refuse a checkpoint that has another average."""
        for other in saved:
            if other.exclusive == self.exclusive and other.name != self.state_key:
                saved_with = f"the checkpoint was saved with {other.name}"
                raise CheckpointError(f"{saved_with}, but this run has {self!r}: resume with that")

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the average out of the module, and load the weights that were current."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if trainer.state.fn != "fit" or self.decay == 0:
            return
        current = checkpoint.get("current_model_state")
        state = checkpoint.get("callbacks", {}).get(self.state_key, {})
        if current is not None:
            self._average.begin(pl_module)
            pl_module.load_state_dict(current, strict=pl_module.strict_loading)
        elif state.get("other"):
            other = {name: tensor.clone() for name, tensor in state["other"].items()}
            self._average.tensors = other
            if state["other_is_current"]:
                self._average.swap(pl_module)
                self._average.is_in_module = False

    def __getstate__(self) -> dict[str, Any]:
        # a copy of a module in mid-training is no part of the run
        return {**super().__getstate__(), **vars(EMA(self.decay, self.every, self.start))}

    def _put_into(self, checkpoint: dict[str, Any], pl_module: LightningModule) -> None:
        """Give a checkpoint the average, and the current weights if it is one to resume from."""
        if not self._average.tensors:
            return
        # the tensors change places for a moment, so that the module's own state_dict names them
        with self._average.exchanged(pl_module):
            other = pl_module.state_dict()
        saved = checkpoint["state_dict"]
        # what a hook of the module has put among the weights stays among those that are loaded
        added = {name: saved.pop(name) for name in saved.keys() - other.keys()}
        both = other, saved
        in_module = self._average.is_in_module
        checkpoint["state_dict"], current = both[::-1] if in_module else both
        checkpoint["state_dict"].update(added)
        if "callbacks" in checkpoint:
            checkpoint["current_model_state"] = current
