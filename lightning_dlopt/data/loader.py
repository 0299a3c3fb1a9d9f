"""The loader for data that lies in memory."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from lightning_dlopt.core.errors import ArgumentTypeError, DataError
from lightning_dlopt.data.resumable import ResumableLoader


class TensorLoader(ResumableLoader[tuple[Tensor, Tensor]]):
    """Yield whole batches ``(inputs, targets)`` of tensors that lie in memory.

    One ``index_select`` for each tensor instead of one Python call for each sample: some fifty
    times faster than a ``DataLoader`` over single images. Order, resume and sharing among ranks
    are those of :class:`~lightning_dlopt.data.resumable.ResumableLoader`.

    Args:
        inputs: Samples along the first dimension, ``(N, ...)``, any dtype.
        targets: Their targets, ``(N, ...)``, on the same device.
        transform: Called with each batch of inputs ``(B, ...)``; returns what is yielded instead.
        **order: ``batch_size=32``, ``shuffle=False``, ``seed=0``, ``rank=0``, ``world_size=1``,
            ``drop_last=False``, as in ``ResumableLoader``.

    Raises:
        ArgumentError: if a number is outside its range.
        ArgumentTypeError: if inputs or targets aren't tensors.
        DataError: if the two differ in length, or there are too few samples for the ranks.

    Example:
        >>> import torch
        >>> loader = TensorLoader(torch.arange(10.0).view(5, 2), torch.arange(5), batch_size=2)
        >>> [targets.tolist() for inputs, targets in loader]
        [[0, 1], [2, 3], [4]]
        >>> len(loader)
        3
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        transform: Callable[[Tensor], Tensor] | None = None,
        **order: Any,
    ) -> None:
        for name, value in (("inputs", inputs), ("targets", targets)):
            if not isinstance(value, Tensor) or value.dim() == 0:
                raise ArgumentTypeError(
                    f"{type(self).__name__}: {name} must be a tensor with samples along its first "
                    f"dimension, not {type(value).__name__}"
                )
        if len(inputs) != len(targets):
            raise DataError(
                f"{type(self).__name__}: {len(inputs)} inputs, but {len(targets)} targets"
            )
        super().__init__(len(inputs), **order)
        self.inputs = inputs
        self.targets = targets
        self.transform = transform

    def _load(self, batches: list[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, targets, transform = self.inputs, self.targets, self.transform
        for indices in batches:
            indices = indices.to(inputs.device)
            batch = inputs.index_select(0, indices)
            yield (
                batch if transform is None else transform(batch),
                targets.index_select(0, indices),
            )
