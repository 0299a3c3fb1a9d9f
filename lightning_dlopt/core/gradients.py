"""The gradients that an optimizer is about to use."""

from weakref import WeakKeyDictionary

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


#: The batch of each Trainer's last backward pass.
_last_backward: WeakKeyDictionary[Trainer, int] = WeakKeyDictionary()


def note_backward(trainer: Trainer) -> None:
    """Remember that the batch under way has been through a backward pass."""
    _last_backward[trainer] = trainer.fit_loop.total_batch_idx


def unscale_gradients(trainer: Trainer, optimizer: Optimizer) -> bool:
    """Take the loss scale of 16-bit training out of the gradients, if it is still in them.

    Lightning does so before ``on_before_optimizer_step``, except for optimizers that take the
    scale themselves: the fused ones. A technique that reads or changes gradients calls this first;
    calling it twice in a step does no harm.

    Returns:
        Whether a step will be made. Under 16-bit training Lightning makes none where
        ``training_step`` returned None, though it calls the hooks before a step; the gradients of
        earlier batches of the window are then still scaled, and are dropped.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None:
        return True
    manual = not trainer.lightning_module.automatic_optimization
    if not manual and _last_backward.get(trainer) != trainer.fit_loop.total_batch_idx:
        return False
    # without gradients nothing is scaled, and the scaler would believe the next ones unscaled
    takes_the_scale = getattr(optimizer, "_step_supports_amp_scaling", False)
    if takes_the_scale and with_gradients(optimizer):
        try:
            scaler.unscale_(optimizer)
        except RuntimeError as error:
            if "already been called" not in str(error):
                raise
    return True


def was_skipped(optimizer: Optimizer) -> bool:
    """Return whether the fused optimizer's step just made left the weights alone.

    16-bit training tells it of an overflow by ``found_inf``; of other optimizers it calls no step.
    """
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf)
