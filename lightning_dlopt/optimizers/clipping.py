"""What all gradient clipping shares: its place in the step, its conflicts, its log."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_dlopt.core.checks import check_flag
from lightning_dlopt.core.errors import ConflictError
from lightning_dlopt.core.gradients import unscale_gradients, with_gradients
from lightning_dlopt.core.log_interval import is_logging_step
from lightning_dlopt.core.named_modules import sparse_embeddings
from lightning_dlopt.core.strategies import strategy_kind
from lightning_dlopt.core.technique import Technique


class GradientClip(Technique, ABC):
    """Changes the gradients right before the optimizer uses them, in one pass after everything.

    It takes the place of Lightning's ``configure_gradient_clipping``, which runs after every
    ``on_before_optimizer_step``: penalties and whatever else was added to the gradients are in
    what is clipped, in any order of the callbacks. Fused optimizers and 16-bit training keep
    working. A module that overrides that hook keeps its own clipping, which then comes first.

    Args:
        replace: leave out the module's own ``configure_gradient_clipping``.

    Logs at the Trainer's logging interval ``clipped_share``, and what a subclass names.
    """

    exclusive: ClassVar[str | None] = "gradient clipping"
    #: Whether it can clip sparse gradients, and those of complex parameters.
    clips_sparse: ClassVar[bool] = False
    clips_complex: ClassVar[bool] = False

    def __init__(self, replace: bool = False) -> None:
        self.replace = check_flag(self, "replace", replace)
        self._to_log: dict[str, Tensor | float] = {}
        self._hooks: list[RemovableHandle] = []
        self._was_called = False

    @abstractmethod
    def clip(
        self, pl_module: LightningModule, parameters: list[Tensor], logging: bool
    ) -> dict[str, Tensor | float]:
        """Clip the gradients of ``parameters`` in place, and return what to log if ``logging``.

        Each of the parameters has a gradient.
        """

    @abstractmethod
    def why_nothing(self) -> str | None:
        """Return why these arguments clip nothing, or None if they do."""

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what would clip twice or not at all, then stand in for Lightning's hook."""
        self._to_log, self._was_called = {}, False
        if trainer.gradient_clip_val:
            raise ConflictError(
                f"{self!r} and the Trainer's gradient_clip_val={trainer.gradient_clip_val!r} would "
                "both clip: keep one of them"
            )
        if not pl_module.automatic_optimization:
            raise self.refuse(
                f"{type(pl_module).__name__} optimizes by hand, where Lightning clips nothing: "
                "call the function of the same name in training_step, before optimizer.step()"
            )
        if strategy_kind(trainer) == "other":
            raise self.refuse(
                f"{type(trainer.strategy).__name__} may flatten or hide the gradients: use one "
                "device, DDP or ModelParallelStrategy (FSDP2)"
            )

        if self.why_nothing() and not self.replace:
            return

        def wrap(original: Callable[..., Any]) -> Callable[..., None]:
            def configure_gradient_clipping(
                optimizer: Optimizer, *args: Any, **kwargs: Any
            ) -> None:
                if not self.replace:
                    original(optimizer, *args, **kwargs)
                self._was_called = True
                if self.why_nothing() or not unscale_gradients(trainer, optimizer):
                    return
                if parameters := with_gradients(optimizer):
                    logging = is_logging_step(trainer)
                    with torch.no_grad():
                        found = self.clip(pl_module, parameters, logging)
                    self._to_log = found if logging else {}

            return configure_gradient_clipping

        self.patch(pl_module, "configure_gradient_clipping", wrap)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch for steps that go around the clip, and refuse gradients that it can't clip."""
        if not self.clips_sparse and sparse_embeddings(pl_module):
            raise self.refuse(
                "an embedding with sparse=True has sparse gradients, which it can't clip: "
                "use sparse=False, or ClipGradNorm"
            )
        if not self.clips_complex and any(p.is_complex() for p in pl_module.parameters()):
            raise self.refuse("a parameter is complex: use ClipGradNorm")
        if self.why_nothing() and not self.replace:
            return

        def see(*_: Any) -> None:
            if not self._was_called:
                raise self.refuse(
                    f"the optimizer_step of {type(pl_module).__name__} steps the optimizer without "
                    "Lightning, so nothing was clipped: call super().optimizer_step there"
                )
            self._was_called = False

        self._hooks = [one.register_step_post_hook(see) for one in trainer.optimizers]

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop watching."""
        while self._hooks:
            self._hooks.pop().remove()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_hooks": [], "_to_log": {}}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell if nothing can be clipped."""
        if (why := self.why_nothing()) and not self.replace:
            self.warn_no_effect(why)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what was seen in this step, if it is one that the Trainer logs."""
        if self._to_log:
            pl_module.log_dict(self._to_log)
            self._to_log = {}
