"""How many samples a batch holds, whatever form it has."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_dlopt.core.batch import Key, get_field
from lightning_dlopt.core.errors import ArgumentError


def count_samples(batch: Any, input_key: Key | None = None) -> int:
    """Return the number of samples in a batch.

    Tensors hold them along their first dimension. A list inside the batch may be one value for
    each sample or several inputs, so both readings are tried and the one that all fields agree on
    is taken.

    Args:
        batch: a tensor, or a tuple, list, mapping, named tuple or dataclass with tensors in it.
        input_key: the field to count by (a position, key or attribute), where fields disagree.

    Raises:
        ArgumentError: if the fields don't agree on one number, or ``input_key`` isn't there.

    Example:
        >>> import torch
        >>> count_samples({"x": torch.zeros(5, 3), "names": ["a"] * 5, "scale": torch.tensor(2.0)})
        5
        >>> count_samples((torch.zeros(5, 3), torch.zeros(7)), input_key=0)
        5
    """
    if input_key is not None:
        batch = _field(batch, input_key)
    sizes = _sizes(batch, samples_in_list=input_key is not None)
    if sizes is None or len(sizes) != 1:
        raise ArgumentError(
            f"can't tell how many samples a batch holds: {_describe(batch)}; give input_key=, the "
            "position or name of a field that holds one entry for each sample"
        )
    return sizes.pop()


def _field(batch: Any, key: Key) -> Any:
    try:
        return get_field(batch, key)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ArgumentError(
            f"a batch has no field input_key={key!r}: {_describe(batch)}"
        ) from error


def _sizes(value: Any, *, samples_in_list: bool) -> set[int] | None:
    """Return the possible numbers of samples, or None if ``value`` says nothing about them."""
    if isinstance(value, Tensor):
        return {value.size(0)} if value.dim() else None
    if isinstance(value, str | bytes):
        return None
    if isinstance(value, Mapping):
        return _agreed(value.values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _agreed(getattr(value, field.name) for field in dataclasses.fields(value))
    if isinstance(value, Sequence):
        inside = _agreed(value)
        if hasattr(value, "_fields") or not samples_in_list:
            return inside
        return {len(value)} | (inside or set())
    return None


def _agreed(values: Iterable[Any]) -> set[int] | None:
    known = [
        sizes for value in values if (sizes := _sizes(value, samples_in_list=True)) is not None
    ]
    return set.intersection(*known) if known else None


def _describe(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return "a mapping of " + ", ".join(
            f"{key!r}: {_shape(item)}" for key, item in batch.items()
        )
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return f"a {type(batch).__name__} of " + ", ".join(map(_shape, batch[:8]))
    return f"a {_shape(batch)}"


def _shape(value: Any) -> str:
    name = type(value).__name__
    return f"{name}{tuple(value.shape)}" if isinstance(value, Tensor) else name
