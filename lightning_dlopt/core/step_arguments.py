"""What a training step is called with."""

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature


def batch_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the batch among the arguments of a training step.

    Example:
        >>> batch_of(("batch", 0), {}), batch_of((), {"batch": "batch", "batch_idx": 0})
        ('batch', 'batch')
    """
    return args[0] if args else kwargs.get("batch", next(iter(kwargs.values()), None))


def with_batch(
    args: tuple[Any, ...], kwargs: dict[str, Any], batch: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a training step with another batch.

    Example:
        >>> with_batch(("batch", 0), {}, "other")
        (('other', 0), {})
    """
    if args:
        return (batch, *args[1:]), kwargs
    name = "batch" if "batch" in kwargs else next(iter(kwargs))
    return args, {**kwargs, name: batch}


def takes_iterator(pl_module: LightningModule) -> bool:
    """Return whether the module fetches its batches itself, from Lightning's ``dataloader_iter``.

    Example:
        >>> takes_iterator(LightningModule())
        False
    """
    return is_param_in_hook_signature(pl_module.training_step, "dataloader_iter", explicit=True)
