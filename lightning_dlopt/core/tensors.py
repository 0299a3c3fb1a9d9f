"""The tensors in whatever a batch or an output is made of."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn


def tensors_in(value: Any, *, objects: bool = False) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples, mappings and dataclasses, in order.

    Args:
        value: of any form.
        objects: whether to look into the attributes of other objects, too, but for modules.

    Example:
        >>> import torch
        >>> [t.item() for t in tensors_in({"x": torch.tensor(1), "y": [torch.tensor(2), "text"]})]
        [1, 2]
    """
    inner: Any = ()
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    elif is_dataclass(value) and not isinstance(value, type):  # which may have no __dict__
        inner = [getattr(value, field.name, None) for field in fields(value)]
    elif objects and hasattr(value, "__dict__") and not isinstance(value, type | nn.Module):
        inner = vars(value).values()
    for item in inner:
        yield from tensors_in(item, objects=objects)
