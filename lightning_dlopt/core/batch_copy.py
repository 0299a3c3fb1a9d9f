"""Copies of a batch, for code that runs a training step on it more than once."""

import copy
import dataclasses
from collections.abc import Mapping, MutableMapping
from typing import Any, TypeVar

from torch import Tensor, nn

T = TypeVar("T")


def copied(batch: T, *, tensors: bool = False) -> T:
    """Return a batch with containers of its own, so that a step may change it and not the other.

    Copied are dicts and other mappings, lists, tuples, named tuples and dataclasses, however they
    are nested, and objects of other classes as ``copy.copy`` copies them; what can't be copied is
    shared.

    Args:
        batch: of any form.
        tensors: whether to clone the tensors, too, which a step may write to (``x.sub_(mean)``).
            By default they are shared.

    Example:
        >>> batch = {"image": 1, "boxes": [2, 3]}
        >>> twin = copied(batch)
        >>> twin["boxes"].append(4), twin.pop("image"), batch
        (None, 1, {'image': 1, 'boxes': [2, 3]})
    """
    twin: T = _copied(batch, tensors, {})
    return twin


def _copied(value: Any, tensors: bool, done: dict[int, Any]) -> Any:
    if id(value) in done:  # what is in it twice is so in the copy, too
        return done[id(value)]
    if isinstance(value, Tensor):
        twin: Any = value.clone() if tensors else value
    elif isinstance(value, tuple):
        items = [_copied(item, tensors, done) for item in value]
        if all(item is old for item, old in zip(items, value, strict=True)):
            twin = value
        else:
            twin = type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    else:
        twin = done[id(value)] = _shallow(value)
        if twin is not value:
            for key, item in _items(value):
                _put(twin, key, _copied(item, tensors, done))
    done[id(value)] = twin
    return twin


def _shallow(value: Any) -> Any:
    if isinstance(value, nn.Module) or callable(value):
        return value
    try:
        return copy.copy(value)
    except Exception:  # a generator, an open file, a lock, and whatever a class thinks of
        return value


def _items(value: Any) -> list[tuple[Any, Any]]:
    """Return what a container holds, by the key under which :func:`_put` puts it there."""
    if isinstance(value, Mapping):
        return list(value.items()) if isinstance(value, MutableMapping) else []
    if isinstance(value, list):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value))
        return [(name, getattr(value, name)) for name in names if hasattr(value, name)]
    return []


def _put(container: Any, key: Any, item: Any) -> None:
    if isinstance(container, MutableMapping | list):
        if container[key] is not item:
            container[key] = item
    else:
        object.__setattr__(container, key, item)  # also where a dataclass is frozen
