"""What a run's classes are called, and how many there are."""

from lightning_dlopt.evidence.advise.class_counts import MOST_CLASSES
from lightning_dlopt.evidence.advise.subject import Subject


def known_classes(subject: Subject) -> int:
    """Return how many classes there are as far as data or module say so, or 0."""
    for part in (subject.prepared_data(), subject.module):
        for name in ("num_classes", "n_classes"):
            value = getattr(part, name, None)
            if isinstance(value, int) and 0 < value < MOST_CLASSES:
                return value
    return 0


def class_names(subject: Subject, count: int) -> list[str]:
    """Return a name for each of ``count`` classes: of the DataModule's ``classes``, or a number.

    Names aren't used if two of them are the same.
    """
    classes = getattr(subject.prepared_data(), "classes", None)
    known = [str(one) for one in classes] if isinstance(classes, list | tuple) else []
    names = known if len(set(known)) == len(known) else []
    return [names[index] if index < len(names) else str(index) for index in range(count)]
