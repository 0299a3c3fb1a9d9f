"""Fingerprints of weights and batches, by which two runs show that they are a pair."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a batch, in order: in containers, and in objects' attributes.

    Example:
        >>> [t.item() for t in tensors_of({"x": torch.tensor(1), "y": [torch.tensor(2), "text"]})]
        [1, 2]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)
    elif is_dataclass(value) and not isinstance(value, type):  # which may have no __dict__
        yield from tensors_of([getattr(value, one.name, None) for one in fields(value)])
    elif hasattr(value, "__dict__") and not isinstance(value, type | nn.Module):
        yield from tensors_of(vars(value))


def fingerprint(tensors: Iterator[Tensor], start: int = 0) -> int:
    """Return a checksum of tensors' values, going on from ``start``.

    Example:
        >>> a, b = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])
        >>> fingerprint(iter([a])) == fingerprint(iter([a.clone()])) != fingerprint(iter([b]))
        True
    """
    for tensor in tensors:
        if tensor.layout is torch.strided and not tensor.is_meta:
            values = tensor.detach().cpu().contiguous().view(-1)
            start = zlib.crc32(values.view(torch.uint8).numpy().tobytes(), start)
    return start


def weights_fingerprint(module: nn.Module) -> str:
    """Return a checksum of a module's parameters and buffers; empty if it has none yet."""
    state = [value for value in module.state_dict().values() if isinstance(value, Tensor)]
    return f"{fingerprint(iter(state)):08x}" if state else ""


def order_fingerprint(batch: Any, start: int, samples: int | None = None) -> int:
    """Return a checksum of which samples a batch holds, going on from ``start``.

    Integers tell samples apart, labels or token ids, and random transforms and precisions leave
    them as they are; where there are none, everything counts.

    Args:
        batch: of any form.
        start: what it goes on from.
        samples: how many of the first samples count; None for all.
    """
    tensors = [tensor if tensor.dim() == 0 else tensor[:samples] for tensor in tensors_of(batch)]
    integers = [tensor for tensor in tensors if not tensor.is_floating_point()]
    return fingerprint(iter(integers or tensors), start)


def sample_count(batch: Any) -> int:
    """Return the length of the first tensor of a batch that has one, else 1."""
    return next((len(tensor) for tensor in tensors_of(batch) if tensor.dim()), 1)
