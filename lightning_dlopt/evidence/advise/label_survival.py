"""Whether a transform of the inputs keeps their labels, by the predictions of a trained model."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

#: By how much the rates along a cycle add up to more than guessing's, besides two standard errors,
#: and to more than they did without the transform.
_CLEARLY, _MORE = 0.1, 0.5


class Survival(NamedTuple):
    """What a transform does to the labels, as the model sees it.

    Attributes:
        plain: accuracy on the samples as they are, in [0, 1].
        changed: accuracy on the transformed samples.
        kept: which share of what the plain accuracy has above guessing is left, at least 0.
        cycles: classes that are taken for each other once they are transformed: of ``[a, b]``
            transformed samples of class a look like class b and those of b like a.
    """

    plain: float
    changed: float
    kept: float
    cycles: list[list[int]]


def judge_labels(
    plain: Tensor, changed: Tensor, targets: Tensor, num_classes: int, least: int = 5
) -> Survival:
    """Compare predictions for samples with those for the same samples, transformed.

    That accuracy falls doesn't show that labels changed: a model that never saw a mirror image may
    just not know it. That the transform maps classes onto each other does. A model that has no
    idea guesses the same whatever it is shown, so that over any set of classes the probabilities
    of calling each by *its own other* name add up to 1 at most; where they add up to clearly more,
    transformed samples of one class look like another class.

    Args:
        plain: ``(N,)``, predicted classes of the samples.
        changed: ``(N,)``, of the transformed samples.
        targets: ``(N,)``, their classes.
        num_classes: how many there are.
        least: how many samples a class must have to be found in a cycle.

    Example:
        >>> targets = torch.tensor([0, 1, 2]).repeat(20)
        >>> mirrored = torch.tensor([1, 0, 2]).repeat(20)
        >>> judge_labels(targets, mirrored, targets, 3).cycles
        [[0, 1]]
    """
    known = targets >= 0  # losses ignore negative ones
    plain, changed, targets = plain[known], changed[known], targets[known]
    count = max(len(targets), 1)
    before = float((plain == targets).sum()) / count
    after = float((changed == targets).sum()) / count
    shares = torch.bincount(targets, minlength=num_classes).double() / count
    guessing = float(shares.max()) if len(targets) else 0.0
    gain = before - guessing
    kept = max(after - guessing, 0.0) / gain if gain > 0 else 0.0
    rows = _confusion(changed, targets, num_classes)
    usual = _confusion(plain, targets, num_classes)
    return Survival(before, after, kept, _find_cycles(rows, usual, least))


def _confusion(predicted: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Return how many of each class (rows) were called what (columns)."""
    flat = targets * num_classes + predicted
    return torch.bincount(flat, minlength=num_classes**2).view(num_classes, num_classes).double()


def _find_cycles(rows: Tensor, usual: Tensor, least: int) -> list[list[int]]:
    """Return the cycles of classes of which each is mostly called the next."""
    counts = rows.sum(1)
    rates = rows / counts.clamp(min=1)[:, None]
    usual_rates = usual / counts.clamp(min=1)[:, None]
    highest, called = rates.max(1)
    cycles, seen = [], set()
    for start in range(len(rows)):
        path: list[int] = []
        place = start
        while place not in seen and place not in path:
            path.append(place)
            place = int(called[place])
        seen.update(path)
        cycle = path[path.index(place) :] if place in path else []
        if len(cycle) < 2 or float(counts[cycle].min()) < least:
            continue
        found = float(highest[cycle].sum())
        # what the model confuses anyway is no doing of the transform's
        usually = float(usual_rates[cycle, called[cycle]].sum())
        error = 2 * math.sqrt(float((0.25 / counts[cycle]).sum()))
        if (
            bool((highest[cycle] >= 0.5).all())
            and found > 1 + _CLEARLY + error
            and found - usually > _MORE
        ):
            cycles.append(cycle)
    return cycles
