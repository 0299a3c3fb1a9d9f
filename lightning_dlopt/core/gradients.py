"""The gradients that an optimizer is about to use."""

from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import Optimizer


def with_gradients(optimizer: Optimizer) -> list[Tensor]:
    """Return the optimizer's parameters that have a gradient, each once.

    Example:
        >>> import torch
        >>> used, unused = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
        >>> used.square().backward()
        >>> with_gradients(torch.optim.SGD([used, unused], lr=0.1)) == [used]
        True
    """
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return list({id(p): p for p in parameters if p.grad is not None}.values())


def unscale_gradients(trainer: Trainer, optimizer: Optimizer) -> None:
    """Take the loss scale of 16-bit training out of the gradients, if it is still in them.

    Lightning does so before ``on_before_optimizer_step``, except for optimizers that take the
    scale themselves: the fused ones. A technique that reads or changes gradients calls this first;
    calling it twice in a step does no harm.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    # without gradients nothing is scaled, and the scaler would believe the next ones unscaled
    if scaler is None or not with_gradients(optimizer):
        return
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:
        if "already been called" not in str(error):
            raise
