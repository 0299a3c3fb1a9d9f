"""How often each class comes in the training set, and which are rare."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_dlopt.core.checks import check_number

#: Most classes that targets may have; more are rather numbers or tokens.
MOST_CLASSES = 100_000


def hard_targets(targets: Tensor) -> Tensor | None:
    """Return the class of each sample, ``(B,)``, or None if targets aren't one class a sample.

    Args:
        targets: integers or booleans ``(B,)`` or ``(B, 1)``; floats of that shape that are 0 or
            1; probabilities ``(B, C)`` that add up to 1.

    Example:
        >>> hard_targets(torch.tensor([[0.1, 0.9], [1.0, 0.0]]))
        tensor([1, 0])
        >>> hard_targets(torch.tensor([0.3, 2.5])) is None
        True
    """
    if targets.dim() == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.dim() == 1 and not targets.is_complex():
        whole = targets.long()
        if not targets.is_floating_point():
            return whole if not whole.numel() or int(whole.max()) < MOST_CLASSES else None
        return whole if bool(((targets == 0) | (targets == 1)).all()) else None
    if targets.dim() == 2 and targets.is_floating_point():
        add_up = (targets.sum(1) - 1).abs().amax() < 1e-3 if targets.numel() else False
        return targets.argmax(1) if bool(add_up) and bool((targets >= 0).all()) else None
    return None


def add_counts(counts: Tensor, classes: Tensor) -> Tensor:
    """Return counts with those of more samples; negative classes, which losses ignore, don't count.

    Example:
        >>> add_counts(torch.tensor([1, 1]), torch.tensor([0, 3, -100]))
        tensor([2, 1, 0, 1])
    """
    classes = classes[classes >= 0].cpu()
    size = max(len(counts), int(classes.max()) + 1 if len(classes) else 0)
    return torch.bincount(classes, minlength=size) + torch.nn.functional.pad(
        counts, (0, size - len(counts))
    )


class Imbalance(NamedTuple):
    """Which classes are out of proportion.

    Attributes:
        rare: numbers of the rare classes, the rarest first.
        dominant: number of a class that has more than half of the samples and ``factor`` times
            as many as the median class, or None.
        median: how many samples the median class has.
    """

    rare: list[int]
    dominant: int | None
    median: float


def find_imbalance(counts: Tensor, factor: float = 5.0, complete: bool = True) -> Imbalance:
    """Find the classes that have far fewer samples than the median class, or most of them.

    Args:
        counts: ``(C,)``, samples of each class.
        factor: how many times fewer than the median class make a class rare, above 1.
        complete: whether these are the whole set's counts. Of a part a class is only rare if chance
            can be ruled out: if it had half as many as the median class, so few would come
            together in one of 1000 parts, whatever the number of classes.

    Example:
        >>> find_imbalance(torch.tensor([100, 3, 100, 100])).rare
        [1]
        >>> find_imbalance(torch.tensor([5, 1, 5, 5]), factor=4, complete=False).rare
        []
    """
    factor = check_number("find_imbalance", "factor", factor, "(1, inf)")
    numbers = counts.double()
    if len(numbers) < 2:
        return Imbalance([], None, float(numbers.sum()))
    median = float(numbers.quantile(0.5))
    rare = numbers * factor < median
    most = int(numbers.argmax())
    if not complete:
        expected = torch.full_like(numbers, median / 2)
        chance = torch.special.gammaincc(numbers + 1, expected)  # of a Poisson number, or fewer
        rare &= chance * len(numbers) < 1e-3
    order = numbers.argsort(stable=True)
    dominates = numbers[most] > numbers.sum() / 2 and numbers[most] > factor * median
    return Imbalance([int(i) for i in order if rare[i]], most if bool(dominates) else None, median)


def count_repeats(classes: Tensor) -> tuple[float, float, float]:
    """Return how often a sample follows one of its class, how often by chance, and its error.

    Args:
        classes: ``(N,)``, in the order in which training sees them.

    Returns:
        The share of samples that follow one of their own class, that share in a random order of
        the same samples, and one standard error of it.

    Example:
        >>> repeats, expected, error = count_repeats(torch.arange(2).repeat_interleave(50))
        >>> round(repeats, 2), round(expected, 2)
        (0.99, 0.49)
    """
    count = len(classes)
    if count < 2:
        return 0.0, 0.0, 1.0
    sizes = torch.bincount(classes.clamp(min=0)).double()
    expected = float((sizes * (sizes - 1)).sum()) / (count * (count - 1))
    repeats = float((classes[1:] == classes[:-1]).double().mean())
    return repeats, expected, (max(expected * (1 - expected), 0.25 / count) / (count - 1)) ** 0.5
