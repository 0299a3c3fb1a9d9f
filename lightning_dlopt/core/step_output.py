"""What a training step returned."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def loss_of(output: Any) -> Tensor | None:
    """Return the loss in what a training step returned: a tensor, a dict with it, or None."""
    return output.get("loss") if isinstance(output, Mapping) else output


def with_loss(output: Any, loss: Tensor) -> Any:
    """Return what a training step returned, with another loss.

    Example:
        >>> import torch
        >>> with_loss({"loss": 0, "hits": 3}, torch.tensor(2.0))
        {'loss': tensor(2.), 'hits': 3}
    """
    return {**output, "loss": loss} if isinstance(output, Mapping) else loss
