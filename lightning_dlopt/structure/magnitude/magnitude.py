"""Which weights are smallest, and how many of them to prune at a step."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_dlopt.core.checks import check_choice, check_number
from lightning_dlopt.core.errors import ArgumentError

SCOPES = ("global", "layer")


def cubic_sparsity(step: int, begin: int, end: int, final: float) -> float:
    """Return the share of weights that is pruned at a step.

    ``final * (1 - (1 - (step - begin) / (end - begin))**3)`` between ``begin`` and ``end``, 0
    before, ``final`` from ``end`` on: fast at first, while many weights can be spared.

    Example:
        >>> [cubic_sparsity(step, 10, 20, 0.5) for step in (5, 10, 15, 20, 30)]
        [0.0, 0.0, 0.4375, 0.5, 0.5]
    """
    if step >= end:
        return final
    if step <= begin:
        return 0.0
    return final * (1 - (1 - (step - begin) / (end - begin)) ** 3)


@torch.no_grad()
def prune_by_magnitude_(
    parameters: Sequence[Tensor],
    sparsity: float,
    scope: str = "global",
    masks: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Set the weights of smallest magnitude to 0, in place, and return masks.

    Exactly ``sparsity`` times all elements are pruned, rounded. Of equal magnitudes those that
    come first go first, so that all ranks of equal weights find equal masks.

    Args:
        parameters: tensors of any shape, each once.
        sparsity: the share to be pruned in all, in [0, 1].
        scope: ``"global"`` takes the smallest of all tensors together, ``"layer"`` of each.
        masks: what an earlier call returned. What was pruned then stays so, and counts.

    Returns:
        For each tensor one of bool that is True where a weight was kept.

    Raises:
        ArgumentError: if an argument is outside its range, or the masks don't fit.

    Example:
        >>> weights = torch.tensor([3.0, -1.0, 0.5, -2.0])
        >>> prune_by_magnitude_([weights], 0.5)
        [tensor([ True, False, False,  True])]
        >>> weights
        tensor([ 3.,  0.,  0., -2.])
    """
    sparsity = check_number("prune_by_magnitude_", "sparsity", sparsity, "[0, 1]")
    check_choice("prune_by_magnitude_", "scope", scope, SCOPES)
    tensors = list(parameters)
    if masks is None:
        masks = [torch.ones_like(tensor, dtype=torch.bool) for tensor in tensors]
    if [tuple(mask.shape) for mask in masks] != [tuple(tensor.shape) for tensor in tensors]:
        raise ArgumentError("prune_by_magnitude_: masks must have the parameters' shapes")
    # what is pruned already comes first, below weights that are 0 by chance
    magnitudes = [t.abs().masked_fill(~m, -1) for t, m in zip(tensors, masks, strict=True)]
    groups = [magnitudes] if scope == "global" else [[one] for one in magnitudes]
    kept = [mask for group in groups for mask in _keep_largest(group, sparsity)]
    for tensor, mask in zip(tensors, kept, strict=True):
        tensor.masked_fill_(~mask, 0)
    return kept


def _keep_largest(magnitudes: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """Return masks of all but the smallest elements of all tensors together."""
    if not magnitudes:
        return []
    device = magnitudes[0].device
    flat = torch.cat([one.flatten().to(device) for one in magnitudes])
    kept = flat != -1
    count = round(sparsity * flat.numel())  # as torch's pruning does
    if count:
        threshold = flat.kthvalue(count).values
        below = flat < threshold
        # not every one of those that equal the threshold, which may be very many
        equal = (flat == threshold).nonzero().flatten()[: count - int(below.sum())]
        kept[below] = False
        kept[equal] = False
    parts = torch.split(kept, [one.numel() for one in magnitudes])
    return [
        part.view(one.shape).to(one.device) for part, one in zip(parts, magnitudes, strict=True)
    ]


def pack_mask(mask: Tensor) -> Tensor:
    """Return a mask with eight elements in a byte.

    Example:
        >>> pack_mask(torch.tensor([True, False, True]))
        tensor([160], dtype=torch.uint8)
    """
    return torch.from_numpy(np.packbits(mask.flatten().cpu().numpy()))


def unpack_mask(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the mask that :func:`pack_mask` packed.

    Example:
        >>> unpack_mask(torch.tensor([160], dtype=torch.uint8), (3,))
        tensor([ True, False,  True])
    """
    bits = np.unpackbits(packed.cpu().numpy(), count=int(np.prod(shape)))
    return torch.from_numpy(bits).bool().view(*shape)
