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

    Takes three passes that leave no trace, with the same inputs and dropout masks, without autocast
    where they run so. A batch doesn't tell if all its labels are the same, or both losses are (as
    those of a last layer of zeros).

    Args:
        passes: what runs them.
        target: the labels.
        put: from labels to the batch that the training step gets.
        catch: makes what mixes the cross-entropies.
    """
    second = other_labels(target)
    if second is None:
        return Answer(None)
    kind = passes.device.type
    if torch.is_autocast_enabled(kind):
        try:
            with torch.autocast(kind, enabled=False):
                return _compare(passes, target, second, put, catch)
        except RuntimeError:  # what works in half precision only, or hasn't the memory
            passes.reset()
    return _compare(passes, target, second, put, catch)


def _compare(
    passes: TwoPasses,
    target: Tensor,
    second: Tensor,
    put: Callable[[Tensor], Any],
    catch: Callable[[MixedLabels], CatchMixedLabels],
) -> Answer:
    losses = [passes.extra(put(labels)) for labels in (target, second)]
    halves = torch.full((len(target),), 0.5, device=target.device)
    catcher = catch(MixedLabels(target, second, halves))
    mixed = passes.extra(put(target), catcher, with_graph=True)
    # two means of a large batch are so near each other that a curve between them isn't seen
    is_straight = mixed is None or not catcher.mixed or depends_linearly(mixed, catcher.mixed)
    passes.reset()
    first, other = losses
    if mixed is None or first is None or other is None:
        return Answer(None)
    others = catcher.passed & OF_CLASSES
    if others:
        return Answer("twice", f"it computes {', '.join(sorted(others))}")
    if not catcher.mixed:
        return Answer("twice", "no cross-entropy of the batch's labels was seen")
    kinds = [loss.dtype for loss in (first, other, mixed)]
    low, high = sorted([float(first), float(other)])
    size = max(abs(low), abs(high))
    off = abs(float(mixed.detach()) - (low + high) / 2)
    if not is_straight or not off <= size * max(_TOLERANCES[kind] for kind in kinds):
        return Answer(
            "twice", "its loss isn't a sum of cross-entropies in which alone the labels come in"
        )
    return Answer("loss" if high - low > 1e-6 * size else None)


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


def depends_linearly(loss: Tensor, parts: list[Tensor]) -> bool:
    """Return whether a loss is a weighted sum of ``parts`` and of what doesn't depend on them.

    Example:
        >>> part = torch.ones(3, requires_grad=True)
        >>> depends_linearly(2 * part.mean(), [part]), depends_linearly(part.exp().sum(), [part])
        (True, False)
    """
    if not loss.requires_grad:
        return False
    try:
        slopes = torch.autograd.grad(loss, parts, create_graph=True, allow_unused=True)
        if all(slope is None for slope in slopes):
            return False
        curved = [slope.sum() for slope in slopes if slope is not None and slope.requires_grad]
        if not curved:
            return True
        curves = torch.autograd.grad(curved, parts, allow_unused=True, retain_graph=True)
    except RuntimeError:  # a function that can be differentiated once only
        return False
    return all(curve is None or not bool(curve.any()) for curve in curves)
