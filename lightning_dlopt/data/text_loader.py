"""The loader for texts that lie in memory as one row of numbers."""

from collections.abc import Iterator
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from lightning_dlopt.core.checks import check_flag
from lightning_dlopt.core.errors import DataError
from lightning_dlopt.data.resumable import ResumableLoader
from lightning_dlopt.data.vocabulary import PAD_ID


class TextLoader(ResumableLoader[tuple[Tensor, Tensor]]):
    """Yield whole batches ``(tokens, targets)`` of texts that lie one after the other in memory.

    ``tokens`` is int64, ``(B, L)``, filled up on the right with 0 to the batch's longest text. A
    batch is put together by a few tensor operations, however many texts it holds. Order, resume
    and sharing among ranks are those of
    :class:`~lightning_dlopt.data.resumable.ResumableLoader`.

    Args:
        tokens: The token ids of all texts in a row, ``(T,)``, any integer type.
        offsets: Where each text begins, and the end of the last: int64, ``(N + 1,)``.
        targets: The texts' targets, ``(N, ...)``.
        group_by_length: Whether a shuffled order puts texts of similar length into a batch, so
            that little of it is padding; see :func:`~lightning_dlopt.data.order.group_by_length`.
            A place saved inside an epoch is then refused if the texts have other lengths.
        **order: ``batch_size=32``, ``shuffle=False``, ``seed=0``, ``rank=0``, ``world_size=1``,
            ``drop_last=False``, as in ``ResumableLoader``.

    Raises:
        ArgumentError: if a number is outside its range.
        DataError: if the tensors disagree, or there are too few texts for the ranks.

    Example:
        >>> tokens, offsets = torch.tensor([5, 6, 7, 8]), torch.tensor([0, 3, 4])
        >>> next(iter(TextLoader(tokens, offsets, torch.tensor([1, 0]))))
        (tensor([[5, 6, 7],
                [8, 0, 0]]), tensor([1, 0]))
    """

    def __init__(
        self,
        tokens: Tensor,
        offsets: Tensor,
        targets: Tensor,
        *,
        group_by_length: bool = True,
        **order: Any,
    ) -> None:
        self.group_by_length = check_flag(self, "group_by_length", group_by_length)
        if len(offsets) != len(targets) + 1 or int(offsets[-1]) != len(tokens):
            raise DataError(
                f"{type(self).__name__}: {len(offsets)} offsets up to {int(offsets[-1])} don't "
                f"fit {len(tokens)} tokens with {len(targets)} targets"
            )
        super().__init__(len(targets), **order)
        self.tokens = tokens
        self.offsets = offsets
        self.targets = targets

    def _lengths(self) -> Tensor | None:
        return self.offsets.diff() if self.group_by_length else None

    def _load(self, batches: list[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        last = max(len(self.tokens) - 1, 0)
        for indices in batches:
            begins, ends = self.offsets[indices], self.offsets[indices + 1]
            lengths = (ends - begins).unsqueeze(1)
            position = torch.arange(int(lengths.max()))
            places = (begins.unsqueeze(1) + position).clamp(max=last)
            tokens = self.tokens[places].long().masked_fill(position >= lengths, PAD_ID)
            yield tokens, self.targets[indices]

    def _order_key(self) -> dict[str, int]:
        key = {**super()._order_key(), "group_by_length": int(self.group_by_length)}
        lengths = self._lengths()
        if self.shuffle and lengths is not None:
            # the order depends on them, which other texts or another tokenizer change
            key["checksum_of_lengths"] = crc32(lengths.cpu().numpy().tobytes())
        return key
