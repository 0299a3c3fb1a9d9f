"""A training step on the same inputs with the one and with the other labels."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_dlopt.core.batch_copy import copied
from lightning_dlopt.core.batch_technique import RunStep
from lightning_dlopt.core.errors import TechniqueError
from lightning_dlopt.core.extra_pass import extra_pass
from lightning_dlopt.core.global_generators import GlobalGenerators
from lightning_dlopt.core.module_state import ModuleState
from lightning_dlopt.core.step_output import loss_of, with_loss


class TwoPasses:
    """Runs a training step on two batches and mixes the losses.

    The first pass is the module's ordinary one. The second starts from the same global generators
    and attributes of the module, and leaves no trace. What they start from is kept when this is
    made.

    Args:
        trainer: the Trainer.
        module: the module.
        run: its training step.

    Attributes:
        device: where the module draws besides the CPU.
        losses: both passes' losses, if there are.
    """

    def __init__(self, trainer: Trainer, module: LightningModule, run: RunStep) -> None:
        self.device = trainer.strategy.root_device
        self._module = module
        self._run = run
        self._state = ModuleState(module)
        self._draws = GlobalGenerators(self.device)
        self.losses: tuple[Tensor, Tensor] | None = None

    def run(self, first: Any, second: Any, share: float) -> Any:
        """Run both passes; return the first one's output with the mixed loss.

        Args:
            first: a batch.
            second: one that has other labels.
            share: of the first batch's loss, in [0, 1].
        """
        kept = copied(second, tensors=True)  # the step may write to what both batches share
        output = self._run(first)
        loss = loss_of(output)
        if loss is None:
            return output
        other = self._extra(kept)
        if other is None:
            raise TechniqueError(
                "the training step returned a loss for one of a sample's two labels and none for "
                "the other, so they can't be mixed"
            )
        self.losses = loss, other
        return with_loss(output, share * loss + (1 - share) * other)

    def extra(
        self,
        batch: Any,
        within: AbstractContextManager[Any] | None = None,
        with_graph: bool = False,
    ) -> Tensor | None:
        """Return the loss of a pass that leaves no trace.

        Args:
            batch: stays as it is.
            within: what to enter around the training step.
            with_graph: whether a gradient can be taken of it.
        """
        with within or nullcontext():
            loss = self._extra(copied(batch, tensors=True))
        return loss if loss is None or with_graph else loss.detach()

    def reset(self) -> None:
        """Bring the module back to where it started, while no graph is there that needs it."""
        self._state.restore_attributes()
        self._state.restore_contents()

    def _extra(self, batch: Any) -> Tensor | None:
        after = ModuleState(self._module)
        self._state.restore_attributes()
        try:
            with extra_pass(self._module, device=self.device):
                self._draws.restore()
                return loss_of(self._run(batch))
        finally:
            after.restore_attributes()


def same_gradients(losses: tuple[Tensor, Tensor], module: LightningModule) -> bool:
    """Return whether two losses are the same, and have the same gradients that aren't all zero."""
    one, two = losses
    if not (one.requires_grad and two.requires_grad and torch.equal(one, two)):
        return False
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    try:
        pairs = [
            torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
            for loss in losses
        ]
    except RuntimeError:  # some compiled graphs go backward once only
        return False
    trains = False
    for left, right in zip(*pairs, strict=True):
        if left is None or right is None:
            if left is not right:
                return False
        elif not torch.equal(left, right):
            return False
        else:
            trains = trains or bool(left.any())
    return trains
