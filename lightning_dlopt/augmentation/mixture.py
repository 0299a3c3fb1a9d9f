"""What the mixing techniques draw: shares, partners, and what they make of labels."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.errors import ArgumentError


def draw_shares(count: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Draw from the distribution Beta(alpha, alpha).

    In closed form (L. Devroye, Random variate generation in one line of code, 1996), since torch's
    own sampling takes no generator.

    Args:
        count: how many.
        alpha: in [0, inf). Small ones give shares near 0 and 1, large ones near 1/2; 0 gives 1.
        generator: on the CPU; what the draws come from.

    Returns:
        ``(count,)`` in float64.

    Example:
        >>> draw_shares(3, 1e6, torch.Generator().manual_seed(0)).round(decimals=2)
        tensor([0.5000, 0.5000, 0.5000], dtype=torch.float64)
    """
    alpha = check_number("draw_shares", "alpha", alpha, "[0, inf)")
    if alpha == 0:
        return torch.ones(count, dtype=torch.float64)
    size, angle = torch.rand(2, count, generator=generator, dtype=torch.float64)
    along = (2 * math.pi * angle).cos()
    squared = torch.expm1(-torch.log1p(-size) / alpha) * along.square()  # of Student's t
    share: Tensor = (1 + along.sign() / (1 + 1 / squared).sqrt()) / 2
    return share


def draw_shift(count: int, generator: torch.Generator) -> int:
    """Draw how far each sample's partner is from it: 1 to ``count - 1``, or 0 if it is alone.

    Example:
        >>> draw_shift(2, torch.Generator())
        1
    """
    if count < 2:
        return 0
    return int(torch.randint(1, count, (), generator=generator))


@dataclass(frozen=True)
class Mixture:
    """How a batch was mixed.

    Attributes:
        shift: sample ``i`` was mixed with sample ``(i + shift) % B``.
        share: what is left of each sample itself, ``(B,)`` on the CPU.
        boxes: where the partner's pixels are, if it was mixed by pixels.
    """

    shift: int
    share: Tensor
    boxes: Tensor | None = None


@dataclass(frozen=True)
class MixedLabels:
    """The two labels of each sample.

    Attributes:
        first: the label of the larger share, ``(B, …)``.
        second: the other one.
        share: the first one's share, ``(B,)``, from 1/2 to 1.
    """

    first: Tensor
    second: Tensor
    share: Tensor


def mix_labels(target: Tensor, mixture: Mixture) -> MixedLabels:
    """Return each sample's labels, that of the larger share first.

    Example:
        >>> mixed = mix_labels(torch.tensor([5, 7]), Mixture(1, torch.tensor([0.9, 0.2])))
        >>> mixed.first, mixed.second, mixed.share
        (tensor([5, 5]), tensor([7, 7]), tensor([0.9000, 0.8000]))
    """
    partner, share = target.roll(-mixture.shift, 0), mixture.share.float()
    own = share >= 0.5
    if bool(own.all()):
        return MixedLabels(target, partner, share.to(target.device))
    share, kept = torch.where(own, share, 1 - share), for_each(own.to(target.device), target)
    first = torch.where(kept, target, partner)
    second = torch.where(kept, partner, target)
    return MixedLabels(first, second, share.to(target.device))


def soften(labels: MixedLabels, num_classes: int | None = None) -> Tensor:
    """Return both labels in one target of floats.

    Args:
        labels: integers ``(B, …)``, or floats (probabilities, or values of a regression).
        num_classes: C; needed for integers only.

    Returns:
        Probabilities ``(B, C, …)`` for integers; ``share · first + (1 - share) · second`` in any
        case.

    Raises:
        ArgumentError: for integers without a number of classes, or outside of it.

    Example:
        >>> soften(MixedLabels(torch.tensor([1]), torch.tensor([0]), torch.tensor([0.75])), 3)
        tensor([[0.2500, 0.7500, 0.0000]])
    """
    first, second = labels.first, labels.second
    if not first.is_floating_point():
        if num_classes is None:
            raise ArgumentError("soft labels of classes need num_classes=, which is None")
        if first.numel() and not bool(((first >= 0) & (first < num_classes)).all()):
            raise ArgumentError(
                f"labels from {int(first.min())} to {int(first.max())} don't all lie in 0 to "
                f"num_classes={num_classes} - 1"
            )
        first, second = (
            functional.one_hot(one.long(), num_classes).movedim(-1, 1).float()
            for one in (first, second)
        )
    share = for_each(labels.share, first).to(first.dtype)
    return torch.lerp(second, first, share.expand_as(first))


def looks_mixed(target: Tensor) -> bool:
    """Return whether probabilities ``(B, C)`` look like those of pairs of labels.

    So they do if some rows have exactly two classes above the rest and no row has more; smoothed
    labels have one, a network's predictions have many.

    Example:
        >>> looks_mixed(torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]]))
        True
    """
    if target.dim() != 2 or target.shape[1] < 3 or not len(target):
        return False
    above = (target > target.amin(1, keepdim=True) + 1e-6).sum(1)
    sums_up = ((target.float().sum(1) - 1).abs() < 1e-2).all() & (target >= 0).all()
    return bool(sums_up & (above.max() == 2))


def for_each(values: Tensor, like: Tensor) -> Tensor:
    """Return one value for each sample in a shape that goes with that of ``like``."""
    return values.reshape(-1, *(1,) * (like.dim() - 1))
