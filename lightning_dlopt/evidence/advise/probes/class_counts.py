"""Are all classes of the training set well represented, and in random order?"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_dlopt.evidence.advise.class_counts import (
    Imbalance,
    add_counts,
    count_repeats,
    find_imbalance,
    hard_targets,
)
from lightning_dlopt.evidence.advise.class_names import class_names, known_classes
from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError, Question
from lightning_dlopt.evidence.advise.loaders import tensor_in
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.subject import Subject

#: How many names of rare classes are shown.
_SHOWN = 5


class ClassCounts(Probe):
    """Counts the training set's classes, as far as the time goes.

    A class is rare if it has less than a fifth of the samples that the median class has. Of a part
    of the set that can only be said if the order is random, which is looked at, too.
    """

    name: ClassVar[str] = "class counts"
    questions: ClassVar[tuple[Question, ...]] = ("generalization",)
    share: ClassVar[float] = 0.3

    def run(self, subject: Subject) -> list[Finding]:
        """Return one finding on the counts, and one on the order where it isn't random."""
        counts = torch.zeros(known_classes(subject), dtype=torch.long)
        sequence: list[Tensor] = []
        complete, seen = True, 0
        for batch in subject.stream("train"):
            classes = _classes(batch)
            counts = add_counts(counts, classes)
            sequence.append(classes)
            seen += len(classes)
            if not subject.check_time(f"counting the classes after {seen} samples"):
                complete = False
                break
        if not seen:
            raise NotDoneError("there are no training batches")
        if len(counts) < 2:
            raise NotDoneError("the targets have one value only")
        order = self._order(subject, torch.cat(sequence))
        if order is not None and not complete:
            return [order]  # the rest may hold other classes
        balance = self._balance(
            subject, counts, find_imbalance(counts, complete=complete), complete
        )
        return [balance] if order is None else [order, balance]

    def _balance(
        self, subject: Subject, counts: Tensor, found: Imbalance, complete: bool
    ) -> Finding:
        names = class_names(subject, len(counts))
        total = int(counts.sum())
        data: dict[str, Any] = {
            "samples": total,
            "complete": complete,
            "counts": dict(zip(names, counts.tolist(), strict=True)),
            "rare": [names[index] for index in found.rare],
        }
        of_what = "" if complete else f" among the first {total} samples"
        if not found.rare and found.dominant is None:
            least = int(counts.argmin())
            return Finding(
                self.name,
                "generalization",
                f"the rarest of {len(counts)} classes, {names[least]}, has {int(counts[least])} of "
                f"{total} samples; the median class has {found.median:g}{of_what}",
                "No class has less than a fifth of the median class's samples.",
                data,
            )
        if found.rare:
            shown = ", ".join(
                f"{names[index]} ({int(counts[index])})" for index in found.rare[:_SHOWN]
            )
            more = len(found.rare) - _SHOWN
            shown += f" and {more} more" if more > 0 else ""
            figure = (
                f"{len(found.rare)} of {len(counts)} classes rare: {shown}; the median class has "
                f"{found.median:g}{of_what}"
            )
            rarest = max(int(counts[found.rare[0]]), 1)
            severity = min(0.3 + 0.1 * max(found.median / rarest, 1.0) ** 0.5, 0.7)
        else:
            largest = int(counts[found.dominant])
            figure = f"class {names[found.dominant or 0]} has {largest} of {total} samples{of_what}"
            severity = 0.4
        return Finding(
            self.name,
            "generalization",
            figure,
            "A loss that weighs all samples alike learns rare classes last, and accuracy hides it; "
            "no technique of this package weighs classes, and label smoothing doesn't.",
            data,
            severity,
            "weigh the loss by class (cross_entropy's weight=) or draw rare classes more often "
            "(torch.utils.data.WeightedRandomSampler), and watch the accuracy of each class",
        )

    def _order(self, subject: Subject, sequence: Tensor) -> Finding | None:
        repeats, expected, error = count_repeats(sequence)
        if repeats < expected + 0.2 or repeats < expected + 5 * error:
            return None
        return Finding(
            self.name,
            "generalization",
            f"{repeats:.0%} of training samples follow one of the same class, of which chance "
            f"makes {expected:.0%}",
            "Batches of one class pull the weights to it and away from the others.",
            {"repeats": repeats, "expected": expected, "samples": len(sequence)},
            0.6,
            "shuffle the training set (shuffle=True of its loader)",
            arm="shuffle",
        )


def _classes(batch: Any) -> Tensor:
    targets = tensor_in(batch, "target")
    classes = hard_targets(targets)
    if classes is None:
        raise NotDoneError(
            f"targets of {targets.dtype} and shape {tuple(targets.shape)} aren't one class for "
            "each sample"
        )
    return classes.cpu()
