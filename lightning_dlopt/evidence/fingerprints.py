"""Fingerprints of weights and batches, by which two runs show that they are a pair."""

import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_dlopt.core.tensors import tensors_in

#: How many samples of each loader tell which data is validated on.
_SAMPLES = 8


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


def order_fingerprint(batch: Any, start: int) -> int:
    """Return a checksum of which samples a batch holds, going on from ``start``.

    Integers tell samples apart, labels or token ids, and random transforms and precisions leave
    them as they are; where there are none, everything counts.
    """
    return fingerprint(iter(_telling(list(tensors_in(batch)))), start)


def _telling(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if not tensor.is_floating_point()] or tensors


def sample_count(batch: Any) -> int:
    """Return the length of the first tensor of a batch that has one, else 1."""
    return next((len(tensor) for tensor in tensors_in(batch) if tensor.dim()), 1)


class HeldOut:
    """Which data is validated on: the first samples of each loader, and the number of all.

    The batches may be of any size. As text it is a checksum and the number; empty if it isn't
    known, because there is no data, or none that could be told apart.
    """

    def __init__(self) -> None:
        self._loaders: list[list[list[Tensor]]] = []
        self._missing = 0
        self._count = 0
        self._known = True

    def add(self, batch: Any, batch_idx: int, casts: bool = False) -> None:
        """Go on by a batch; with the one of index 0 a loader begins.

        Args:
            batch: of any form.
            batch_idx: its place in its loader.
            casts: whether its floats may be rounded, so that they tell nothing.
        """
        if batch_idx == 0:
            self._loaders.append([])
            self._missing = _SAMPLES
        count = sample_count(batch)
        if self._missing > 0:
            tensors = _telling(list(tensors_in(batch)))
            self._known &= not (casts and any(one.is_floating_point() for one in tensors))
            loader = self._loaders[-1]
            loader += [[] for _ in tensors[len(loader) :]]
            for noted, tensor in zip(loader, tensors, strict=False):
                if tensor.dim() or batch_idx == 0:
                    first = tensor[: self._missing] if tensor.dim() else tensor
                    noted.append(first.detach().clone())
            self._missing -= count
        self._count += count

    def __str__(self) -> str:
        if not self._count or not self._known:
            return ""
        checksum = 0
        for noted in (noted for loader in self._loaders for noted in loader):
            checksum = fingerprint(iter(noted), checksum)
        return f"{checksum:08x}-{self._count}"
