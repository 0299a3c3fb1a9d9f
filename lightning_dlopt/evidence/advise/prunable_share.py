"""How many of the weights can be set to zero before the loss moves."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_dlopt.structure.magnitude.magnitude import prune_by_magnitude_


def prunable_share(
    weights: Sequence[Tensor],
    measure: Callable[[], float],
    limit: float,
    steps: int = 6,
) -> tuple[float, float]:
    """Find the largest share of weights that can be pruned at once with a loss below a limit.

    The weights of smallest magnitude in all tensors together are set to 0, without any training
    afterwards. The share is found by halving, as if the loss could only rise with it; the one that
    is returned has been measured. The weights are as before when it returns or raises.

    Args:
        weights: tensors of the network, changed in place for the time being.
        measure: returns the loss of the network as it is now; the same samples each time.
        limit: up to which the loss may rise.
        steps: how often to halve: the share is known to ``2**-steps``.

    Returns:
        The share of all elements, in [0, 1], and the loss with so many pruned; 0 and NaN if it was
        below the limit with none of the shares.

    Example:
        >>> weight = torch.tensor([0.0, 0.0, 0.0, 5.0])
        >>> prunable_share([weight], lambda: 6 - float(weight.sum()), 1.5, steps=2)
        (0.75, 1.0)
    """
    originals = [weight.detach().clone() for weight in weights]
    low, high, loss, pruned = 0.0, 1.0, math.nan, 0
    try:
        for _ in range(steps):
            middle = (low + high) / 2
            with torch.no_grad():
                masks = prune_by_magnitude_(weights, middle)
            found = measure()
            if found <= limit:  # false of NaN
                low, loss, pruned = middle, found, sum(int((~mask).sum()) for mask in masks)
            else:
                high = middle
            _fill(weights, originals)
    finally:
        _fill(weights, originals)
    return pruned / max(sum(weight.numel() for weight in weights), 1), loss


def _fill(weights: Sequence[Tensor], originals: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for weight, original in zip(weights, originals, strict=True):
            weight.copy_(original)
