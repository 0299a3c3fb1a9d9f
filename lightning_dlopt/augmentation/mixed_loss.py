"""The cross-entropy of samples that have two labels, and where to compute it."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_dlopt.augmentation.mixture import MixedLabels, looks_mixed
from lightning_dlopt.core.cross_entropy import OF_CLASSES, CatchCrossEntropy, class_dim
from lightning_dlopt.core.errors import ConflictError


def mixed_cross_entropy(
    logits: Tensor,
    labels: MixedLabels,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return ``share · CE(first) + (1 - share) · CE(second)``, each sample by its own share.

    For ``reduction="mean"`` each of the two parts is divided by what ``cross_entropy`` divides it
    by: the sum of its labels' class weights, of those that aren't ignored. With one share for all
    it is therefore the mixture of the two cross-entropies, whatever their options.

    Args:
        logits: ``(N, C, d1, …)``.
        labels: class indices ``(N, d1, …)`` or probabilities in the logits' shape, with a share
            for each of them, ``(N,)`` or ``(N, d1, …)``.
        weight: see ``torch.nn.functional.cross_entropy``, as for the following.
        ignore_index: see there.
        reduction: see there.
        label_smoothing: see there.

    Example:
        >>> labels = MixedLabels(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.75]))
        >>> round(float(mixed_cross_entropy(torch.tensor([[1.0, 0.0]]), labels)), 4)
        0.5633
    """
    if not labels.first.is_floating_point() and label_smoothing == 0:
        return _of_classes(logits, labels, weight, ignore_index, reduction)
    options: dict[str, Any] = {
        "weight": weight,
        "ignore_index": ignore_index,
        "reduction": "none",
        "label_smoothing": label_smoothing,
    }
    total: Tensor | int = 0
    for label, share in ((labels.first, labels.share), (labels.second, 1 - labels.share)):
        values = functional.cross_entropy(logits, label, **options)
        values = values * share.reshape(*share.shape, *(1,) * (values.dim() - share.dim()))
        if reduction != "none":
            values = values.sum()
        if reduction == "mean":
            values = values / _counted(logits, label, weight, ignore_index)
        total = total + values
    assert isinstance(total, Tensor)
    return total


def _of_classes(
    logits: Tensor, labels: MixedLabels, weight: Tensor | None, ignore_index: int, reduction: str
) -> Tensor:
    """Return the same for class indices without smoothing, by few operations."""
    dim = class_dim(logits)
    classes = torch.stack([labels.first, labels.second], dim)
    kept = classes != ignore_index
    classes = torch.where(kept, classes, 0).long()
    share = torch.stack([labels.share, 1 - labels.share], dim)
    share = share.reshape(*share.shape, *(1,) * (classes.dim() - share.dim()))
    counts = kept if weight is None else torch.where(kept, weight[classes], 0)
    share = share * counts
    if reduction == "mean":
        others = [d for d in range(classes.dim()) if d != dim]
        share = share / (counts.sum(others, keepdim=True) if others else counts)
    # a class that is ignored may be one whose logits are infinite
    found = torch.where(kept, functional.log_softmax(logits, dim).gather(dim, classes), 0)
    return -(found * share).sum(dim if reduction == "none" else None)


def _counted(
    logits: Tensor, label: Tensor, weight: Tensor | None, ignore_index: int
) -> Tensor | int:
    """Return what cross_entropy divides by to get the mean."""
    if label.is_floating_point():
        return logits.numel() // logits.shape[class_dim(logits)]
    kept = label != ignore_index
    if weight is None:
        return kept.sum()
    return torch.where(kept, weight[torch.where(kept, label, 0).long()], 0).sum()


class CatchMixedLabels(CatchCrossEntropy):
    """While it is entered, cross-entropies of a batch's first labels are those of both labels.

    Known is a target that is the batch's, or has its values in their order, in whatever type and
    shape. Cross-entropies of other targets are left alone.

    Args:
        labels: the two labels of each sample; the training step has got the first ones.
        owner: the technique, for messages.

    Attributes:
        mixed: the cross-entropies that were mixed.

    Raises:
        ConflictError: if the module mixes the labels itself: it computes a cross-entropy of the
            same logits for the labels in another order, or for probabilities of two classes each.
    """

    def __init__(self, labels: MixedLabels, owner: object) -> None:
        super().__init__(self._replace)
        self._labels = labels
        self._owner = owner
        self._seen: list[tuple[Tensor, Tensor, bool]] = []
        self.mixed: list[Tensor] = []

    def why_not_all(self, loss: Tensor) -> str | None:
        """Return why a training step's loss may depend on the labels in another way, or None."""
        others = self.passed & OF_CLASSES
        if others:
            return f"it computes {', '.join(sorted(others))}"
        if not self.mixed:
            return "no cross-entropy of the batch's labels was seen"
        if not depends_linearly(loss, self.mixed):
            return "its loss isn't a weighted sum of cross-entropies of the labels"
        return None

    def _replace(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        ours = self._is_ours(target)
        self._look_for_mixing(logits, target, ours)
        if not ours:
            return functional.cross_entropy(logits, target, **options)
        first, second, share = self._labels.first, self._labels.second, self._labels.share
        if target.dim() != first.dim() or share.shape != target.shape[:1]:
            share = share.reshape(-1, *(1,) * (first.dim() - 1)).expand_as(first)
            share = share.reshape(target.shape)
        labels = MixedLabels(target, second.reshape(target.shape).to(target.dtype), share)
        loss = mixed_cross_entropy(logits, labels, **options)
        self.mixed.append(loss)
        return loss

    def _is_ours(self, target: Tensor) -> bool:
        first = self._labels.first
        if target is first:
            return True
        if target.numel() != first.numel():
            return False
        if target.is_floating_point() != first.is_floating_point():
            return False
        # shapes may differ by a dimension of 1, or two that are one; not the order, then
        if first.is_floating_point() and target.shape != first.shape:
            return False
        return torch.equal(target.reshape(-1), first.reshape(-1).to(target.dtype))

    def _look_for_mixing(self, logits: Tensor, target: Tensor, ours: bool) -> None:
        found = False
        if target.is_floating_point():
            found = not self._labels.first.is_floating_point() and looks_mixed(target.detach())
        else:
            for others, other, was_ours in self._seen:
                if others is logits and was_ours != ours and other.shape == target.shape:
                    one, two = target.reshape(-1).sort()[0], other.reshape(-1).sort()[0]
                    found = found or torch.equal(one, two.to(one.dtype))
        if found:
            raise ConflictError(
                f"{self._owner!r}: the training step mixes the labels itself (as by mixup or "
                "CutMix): keep one of the two"
            )
        self._seen.append((logits, target, ours))


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
