"""The cross-entropy of samples that have two labels, and where to compute it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_dlopt.augmentation.mixture import MixedLabels, for_each, looks_mixed
from lightning_dlopt.core.batch import Key
from lightning_dlopt.core.cross_entropy import CatchCrossEntropy, class_dim
from lightning_dlopt.core.errors import ConflictError, TechniqueError


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

    For ``reduction="mean"`` the sum is divided by ``Σ (w(first) + w(second)) / 2``, where ``w`` is
    a label's class weight, and 0 if it is ignored. Where the second labels are the first ones in
    another order, as in a batch with one share, that is what ``cross_entropy`` divides either by,
    so the mean is the mixture of the two cross-entropies. It doesn't matter which of a sample's
    labels comes first, and a part in which no label counts adds 0.

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
    if not labels.first.is_floating_point():  # where uint8, ignore_index=-100 would be 156
        labels = MixedLabels(labels.first.long(), labels.second.long(), labels.share)
        if label_smoothing == 0:
            return _of_classes(logits, labels, weight, ignore_index, reduction)
    options: dict[str, Any] = {
        "weight": weight,
        "ignore_index": ignore_index,
        "reduction": "none",
        "label_smoothing": label_smoothing,
    }
    total: Tensor | int = 0
    count: Tensor | float = 0.0
    for label, share in ((labels.first, labels.share), (labels.second, 1 - labels.share)):
        values = functional.cross_entropy(logits, label, **options)
        values = values * share.reshape(*share.shape, *(1,) * (values.dim() - share.dim()))
        total = total + (values if reduction == "none" else values.sum())
        count = count + _counted(logits, label, weight, ignore_index) / 2
    assert isinstance(total, Tensor)
    return total / count if reduction == "mean" else total


def _of_classes(
    logits: Tensor, labels: MixedLabels, weight: Tensor | None, ignore_index: int, reduction: str
) -> Tensor:
    """Return the same for class indices without smoothing, by few operations."""
    dim = class_dim(logits)
    classes = torch.stack([labels.first, labels.second], dim)
    kept = classes != ignore_index
    classes = torch.where(kept, classes, 0)
    share = torch.stack([labels.share, 1 - labels.share], dim)
    share = share.reshape(*share.shape, *(1,) * (classes.dim() - share.dim()))
    counts = kept if weight is None else torch.where(kept, weight[classes], 0)
    share = share * counts
    # a class that is ignored may be one whose logits are infinite
    found = torch.where(kept, functional.log_softmax(logits, dim).gather(dim, classes), 0)
    total = -(found * share).sum(dim if reduction == "none" else None)
    return total / (counts.sum() / 2) if reduction == "mean" else total


def _counted(
    logits: Tensor, label: Tensor, weight: Tensor | None, ignore_index: int
) -> Tensor | int:
    """Return what cross_entropy divides by to get the mean."""
    if label.is_floating_point():
        return logits.numel() // logits.shape[class_dim(logits)]
    kept = label != ignore_index
    if weight is None:
        return kept.sum()
    return torch.where(kept, weight[torch.where(kept, label, 0)], 0).sum()


class CatchMixedLabels(CatchCrossEntropy):
    """While it is entered, cross-entropies of a batch's first labels are those of both labels.

    Known is a target that is the batch's, or has its values in their order, in whatever type and
    shape. Cross-entropies of other targets are left alone, but for those of ``others``.

    Args:
        labels: the two labels of each sample; the training step has got the first ones.
        owner: the technique, for messages.
        others: further fields of the batch with an integer for each sample, by key.

    Attributes:
        mixed: the cross-entropies that were mixed.

    Raises:
        ConflictError: if the module mixes the labels itself: it computes a cross-entropy of the
            same logits for the labels in another order, or for probabilities of two classes each.
        TechniqueError: for a cross-entropy of one of ``others``, which would have the labels of one
            of the two mixed samples only. Harmless is one in which all are the same.
    """

    def __init__(
        self, labels: MixedLabels, owner: object, others: Mapping[Key, Tensor] | None = None
    ) -> None:
        super().__init__(self._replace)
        self._labels = labels
        self._owner = owner
        self._others = others or {}
        self._seen: list[tuple[Tensor, Tensor, bool]] = []
        self.mixed: list[Tensor] = []

    def _replace(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        ours = self._is_ours(target)
        self._look_for_mixing(logits, target, ours)
        if not ours:
            self._look_for_others(target)
            return functional.cross_entropy(logits, target, **options)
        first, second, share = self._labels.first, self._labels.second, self._labels.share
        if target.dim() != first.dim() or share.shape != target.shape[:1]:
            share = for_each(share, first).expand_as(first)
            share = share.reshape(target.shape)
        labels = MixedLabels(target, second.reshape(target.shape).to(target.dtype), share)
        loss = mixed_cross_entropy(logits, labels, **options)
        self.mixed.append(loss)
        return loss

    def _look_for_others(self, target: Tensor) -> None:
        for key, other in self._others.items():
            is_other = target is other or (
                target.numel() == other.numel()
                and not target.is_floating_point()
                and torch.equal(target.reshape(-1), other.reshape(-1).to(target.dtype))
            )
            if is_other and bool((other != other[:1]).any()):
                raise TechniqueError(
                    f"{self._owner!r}: the training step computes a cross-entropy of the batch's "
                    f"{key!r}, which isn't mixed like the target: one target can be mixed, that of "
                    "target_key="
                )

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
