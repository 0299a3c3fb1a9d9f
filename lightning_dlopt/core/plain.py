"""Values as plain data, which a checkpoint can hold and ``weights_only`` can load."""

import enum
import functools
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Return ``value`` as numbers, strings, lists and dicts; anything else by its full name.

    Example:
        >>> import torch
        >>> plain(("5ep", [1, 2.0], torch.nn.ReLU))
        ['5ep', [1, 2.0], 'torch.nn.modules.activation.ReLU']
    """
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted(plain(item) for item in value)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if isinstance(value, functools.partial):
        return {"call": plain(value.func), "args": plain(value.args), **plain(value.keywords)}
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
