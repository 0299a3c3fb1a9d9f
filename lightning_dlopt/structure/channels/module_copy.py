"""Copies of modules to try things on, also of those that hold what can't be copied."""

import copy
from typing import Any, TypeVar

from lightning.pytorch import LightningModule
from torch import nn

#: What torch and Lightning keep in every module, the Trainer among it.
_FRAMEWORK = frozenset(vars(LightningModule()))

M = TypeVar("M", bound=nn.Module)


def copy_of(module: M) -> M:
    """Return a deep copy of a module; what can't be copied in an attribute of it is shared.

    Such are the optimizer that a command line is about to build, a tensor with a history, or an
    open file. Parts, parameters and buffers are always copies.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> layer.last_output = layer.weight * 2
        >>> copy_of(layer).weight is layer.weight
        False
    """
    try:
        return copy.deepcopy(module)
    except Exception:  # whatever the classes of its attributes raise
        parts: dict[int, Any] = {id(part): part for part in module.modules()}
        shared = {
            id(value): value
            for part in module.modules()
            for name, value in vars(part).items()
            if name not in _FRAMEWORK and not _copies(value, parts)
        }
        return copy.deepcopy(module, shared)


def _copies(value: Any, parts: dict[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(parts))
    except Exception:
        return False
    return True
