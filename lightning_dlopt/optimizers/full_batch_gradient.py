"""The gradient of a whole set, computed batch by batch: for loops of one's own."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_dlopt.core.batch import Key
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.sample_count import count_samples


def full_batch_gradient(
    loss: Callable[[Any], Tensor],
    batches: Iterable[Any],
    parameters: Sequence[nn.Parameter],
    input_key: Key | None = None,
) -> list[Tensor]:
    """Return the gradient of the mean loss over all samples, computed batch by batch.

    Args:
        loss: gives the mean loss over the samples of a batch, a scalar.
        batches: the whole set; they may differ in size.
        parameters: what to differentiate by; those that the loss doesn't use get zeros.
        input_key: see :func:`~lightning_dlopt.core.batches.count_samples`.

    Raises:
        ArgumentError: if there are no samples, or their number can't be told.

    Example:
        >>> w = nn.Parameter(torch.tensor(0.0))
        >>> halves = [torch.tensor([1.0, 2.0]), torch.tensor([6.0])]
        >>> full_batch_gradient(lambda x: (w * x).mean(), halves, [w])
        [tensor(3.)]
    """
    total, sums = 0, [torch.zeros_like(parameter) for parameter in parameters]
    for batch in batches:
        samples = count_samples(batch, input_key)
        parts = torch.autograd.grad(loss(batch), parameters, allow_unused=True)
        for one, part in zip(sums, parts, strict=True):
            if part is not None:
                one.add_(part, alpha=samples)
        total += samples
    if not total:
        raise ArgumentError("full_batch_gradient: batches hold no samples")
    return [one.div_(total) for one in sums]
