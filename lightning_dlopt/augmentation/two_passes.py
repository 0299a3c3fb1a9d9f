"""A training step on the same inputs with the one and with the other labels."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_dlopt.core.batch_copy import copied
from lightning_dlopt.core.batch_technique import RunStep
from lightning_dlopt.core.errors import TechniqueError
from lightning_dlopt.core.extra_pass import extra_pass
from lightning_dlopt.core.global_generators import GlobalGenerators
from lightning_dlopt.core.module_state import ModuleState


def with_loss(output: Any, loss: Tensor) -> Any:
    """Return what a training step returned, with another loss.

    Example:
        >>> import torch
        >>> with_loss({"loss": 0, "hits": 3}, torch.tensor(2.0))
        {'loss': tensor(2.), 'hits': 3}
    """
    return {**output, "loss": loss} if isinstance(output, Mapping) else loss


class TwoPasses:
    """Runs a training step on two batches and mixes the losses.

    The first pass is the module's ordinary one. The second starts from the same global generators
    and attributes of the module, and leaves no trace.

    Args:
        trainer: the Trainer.
        module: the module.
        run: its training step.
        first: a batch.
        second: one that has other labels.
        share: of the first batch's loss, in [0, 1].
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        run: RunStep,
        first: Any,
        second: Any,
        share: float,
    ) -> None:
        self._device = trainer.strategy.root_device
        self._module = module
        self._run = run
        self._first, self._second = first, second
        self._share = share
        self._kept: tuple[Any, Any] = (None, None)

    def prepare(self) -> None:
        """Keep what a step may change: the batches, the module's state, the generators."""
        self._kept = copied(self._first, tensors=True), copied(self._second, tensors=True)
        self._state = ModuleState(self._module)
        self._draws = GlobalGenerators(self._device)

    def run(self) -> Any:
        """Run both passes; return the first one's output with the mixed loss."""
        self.prepare()
        return self.finish(self._run(self._first))

    def finish(self, output: Any) -> Any:
        """Return a first pass's output with the mixed loss, after running the second."""
        loss = loss_of(output)
        if loss is None:
            return output
        return with_loss(output, self._mean(loss, self._extra(self._kept[1])))

    def again(self) -> Tensor:
        """Return the mixed loss of two passes that leave no trace."""
        return self._mean(self._extra(self._kept[0]), self._extra(self._kept[1]))

    def _extra(self, batch: Any) -> Tensor | None:
        after = ModuleState(self._module)
        self._state.restore_attributes()
        try:
            with extra_pass(self._module, device=self._device):
                self._draws.restore()
                return loss_of(self._run(batch))
        finally:
            after.restore_attributes()

    def _mean(self, first: Tensor | None, second: Tensor | None) -> Tensor:
        if first is None or second is None:
            raise TechniqueError(
                "the training step returned a loss for one of a sample's two labels and none for "
                "the other, so they can't be mixed"
            )
        return self._share * first + (1 - self._share) * second


def loss_of(output: Any) -> Tensor | None:
    """Return the loss in what a training step returned: a tensor, a dict with it, or None."""
    return output.get("loss") if isinstance(output, Mapping) else output
