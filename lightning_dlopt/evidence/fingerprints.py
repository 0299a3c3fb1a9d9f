"""Fingerprints of weights and batches, by which two runs show that they are a pair."""

import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_dlopt.core.tensors import tensors_in


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
    found = tensors_in(batch, objects=True)
    tensors = [tensor if tensor.dim() == 0 else tensor[:samples] for tensor in found]
    integers = [tensor for tensor in tensors if not tensor.is_floating_point()]
    return fingerprint(iter(integers or tensors), start)


def sample_count(batch: Any) -> int:
    """Return the length of the first tensor of a batch that has one, else 1."""
    return next((len(tensor) for tensor in tensors_in(batch, objects=True) if tensor.dim()), 1)
