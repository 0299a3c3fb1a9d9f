"""The base of techniques that change the batch that a training step gets."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError, TechniqueError
from lightning_dlopt.core.patching import BATCH
from lightning_dlopt.core.step_arguments import batch_of, takes_iterator, with_batch
from lightning_dlopt.core.technique import Technique, techniques_of

#: Runs the training step on a batch and returns what it returned.
RunStep = Callable[[Any], Any]


class BatchTechnique(Technique, ABC):
    """Changes the batch on its way into ``training_step``.

    It sees the batch where Lightning has brought it, on the module's device. The batch itself
    stays as it is: callbacks see it unchanged, and a loader may hand out the same tensors again.
    Validation, also one that calls ``training_step``, gets its own batches. Several of these
    techniques work in the order of the Trainer's callbacks, the first one first.

    Random numbers are drawn on the CPU, from a generator keyed by (seed, technique, rank, batch),
    so that they are the same on every device, and a resumed run goes on with them.

    A module that sets its ``training_step`` to another method between batches is followed. One
    that takes the ``dataloader_iter`` is refused: its batches don't pass here.
    """

    #: Where in the step it works; see :mod:`.patching`.
    level = BATCH
    _has_run = False
    _is_active = False

    @abstractmethod
    def neutral(self) -> str | None:
        """Return why the arguments leave training as it is, or None if they don't."""

    @abstractmethod
    def change(self, batch: Any, generator: torch.Generator) -> Any:
        """Return the batch that the training step gets instead; ``batch`` stays as it is.

        Args:
            batch: of any form, on any device.
            generator: on the CPU; all that is random comes from it.
        """

    def step(self, trainer: Trainer, pl_module: LightningModule, run: RunStep, batch: Any) -> Any:
        """Return what ``run``, the training step, makes of the changed batch."""
        return run(self.changed(batch, self.generator(trainer)))

    def changed(self, batch: Any, generator: torch.Generator) -> Any:
        """Return the changed batch; what is wrong with the data refuses the module."""
        try:
            return self.change(batch, generator)
        except (ArgumentError, ArgumentTypeError) as error:
            raise self.refused(error) from error

    def refused(self, error: Exception) -> TechniqueError:
        """Return the refusal for an error of this technique's, which it names once."""
        return self.refuse(str(error).removeprefix(f"{type(self).__name__}: "))

    def label_shares(self, batch: Any, generator: torch.Generator) -> list[dict[int, float]] | None:
        """Return each sample's labels with their shares after a change with the same draws.

        None if the technique leaves labels alone. For pictures of what it does.
        """
        return None

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go around the training step, unless the arguments are neutral."""
        why = self.neutral()
        self._is_active = why is None
        if why is not None:
            self.warn_no_effect(why)
            return
        if takes_iterator(pl_module):
            raise self.refuse(
                f"{type(pl_module).__name__}.training_step takes its batches from dataloader_iter, "
                "where they can't be changed: let it take the batch"
            )

        def wrap(training_step: Callable[..., Any]) -> Callable[..., Any]:
            def step(*args: Any, **kwargs: Any) -> Any:
                if not trainer.training:
                    return training_step(*args, **kwargs)
                self._has_run = True

                def run(batch: Any) -> Any:
                    given, named = with_batch(args, kwargs, batch)
                    return training_step(*given, **named)

                return self.step(trainer, pl_module, run, batch_of(args, kwargs))

            return step

        place = next(i for i, one in enumerate(techniques_of(trainer)) if one is self)
        # of one level the last that is patched is outermost and works first
        self.patch(pl_module, "training_step", wrap, level=self.level - place)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look out for the training step."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._has_run = False

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Refuse a module whose training step was another one than the one that was patched."""
        self._require_run(pl_module)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Do the same where the module calls ``loss.backward()`` itself."""
        if not pl_module.automatic_optimization:
            self._require_run(pl_module)

    def _require_run(self, pl_module: LightningModule) -> None:
        if self._is_active and not self._has_run:
            raise self.refuse(
                f"{type(pl_module).__name__}.training_step was set to another method when the "
                "batch had begun, so it got an unchanged batch: set it in on_train_epoch_start"
            )
