"""Whether mixing a module's cross-entropies gives the mixture of its losses: tried out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt.augmentation.mixed_loss import CatchMixedLabels
from lightning_dlopt.augmentation.mixture import MixedLabels
from lightning_dlopt.augmentation.two_passes import TwoPasses
from lightning_dlopt.core.cross_entropy import OF_CLASSES

#: How far two ways of computing a loss may be from each other, relatively.
_TOLERANCES = {
    torch.float64: 1e-6,
    torch.float32: 1e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 2e-2,
}


@dataclass(frozen=True)
class Answer:
    """What a probe has found.

    Attributes:
        way: ``"loss"``, ``"twice"``, or None if this batch doesn't tell.
        why: for ``"twice"``, what is in the way of the other.
    """

    way: str | None
    why: str = ""


def probe_labels(
    passes: TwoPasses,
    target: Tensor,
    put: Callable[[Tensor], Any],
    catch: Callable[[MixedLabels], CatchMixedLabels],
) -> Answer:
    """Compare a loss of mixed cross-entropies with the mixture of two losses, at shares of 1/2.

    Takes three passes that leave no trace, with the same inputs and dropout masks. A batch doesn't
    tell if all its labels are the same, or both losses are (as those of a last layer of zeros).

    Args:
        passes: what runs them.
        target: the labels.
        put: from labels to the batch that the training step gets.
        catch: makes what mixes the cross-entropies.
    """
    second = other_labels(target)
    if second is None:
        return Answer(None)
    losses = [passes.extra(put(labels)) for labels in (target, second)]
    halves = torch.full((len(target),), 0.5, device=target.device)
    catcher = catch(MixedLabels(target, second, halves))
    mixed = passes.extra(put(target), catcher)
    passes.reset()
    if mixed is None or any(loss is None for loss in losses):
        return Answer(None)
    others = catcher.passed & OF_CLASSES
    if others:
        return Answer("twice", f"it computes {', '.join(sorted(others))}")
    if not catcher.mixed:
        return Answer("twice", "no cross-entropy of the batch's labels was seen")
    first, other = (float(loss) for loss in losses if loss is not None)
    tolerance = _TOLERANCES.get(mixed.dtype, 1e-4) * max(abs(first), abs(other))
    if not abs(float(mixed) - (first + other) / 2) <= tolerance:
        return Answer(
            "twice", "its loss isn't a sum of cross-entropies in which alone the labels come in"
        )
    exact = torch.finfo(mixed.dtype).eps * 8 * max(abs(first), abs(other))
    return Answer("loss" if abs(first - other) > exact else None)


def other_labels(target: Tensor) -> Tensor | None:
    """Return the labels in an order in which many are others; None if all are the same.

    Example:
        >>> other_labels(torch.tensor([1, 2, 1, 2]))
        tensor([2, 1, 2, 1])
    """
    best, most = None, 0
    for shift in range(1, min(len(target), 17)):
        rolled = target.roll(shift, 0)
        count = int((rolled != target).reshape(len(target), -1).any(1).sum())
        if count > most:
            best, most = rolled, count
    return best
