"""What a probe is, and which there are."""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from typing import ClassVar

from lightning_dlopt.evidence.advise.finding import Finding, Question
from lightning_dlopt.evidence.advise.subject import Subject


class Probe(ABC):
    """Measures something on a module and its data, and says what it leads to.

    A subclass sets the three attributes and implements :meth:`run`; it stands in a file of its own
    in ``probes/``, where :func:`find_probes` finds it, and its constructor needs no arguments.
    """

    #: What it is called, in a few words.
    name: ClassVar[str]
    #: The questions that its findings answer.
    questions: ClassVar[tuple[Question, ...]]
    #: Its part of the time, relative to the other probes'; the cheapest run first.
    share: ClassVar[float] = 1.0

    @abstractmethod
    def run(self, subject: Subject) -> list[Finding]:
        """Return the findings, at least one; with severity 0 where nothing is wrong.

        Raises:
            NotDoneError: if it can't work here; the message says why.
        """


def find_probes() -> list[Probe]:
    """Return one of each probe, the cheapest first, and by name among equals."""
    from lightning_dlopt.evidence.advise import probes

    found: list[Probe] = []
    for module in pkgutil.iter_modules(probes.__path__):
        content = vars(importlib.import_module(f"{probes.__name__}.{module.name}")).values()
        found += [
            one()
            for one in content
            if isinstance(one, type)
            and issubclass(one, Probe)
            and one.__module__ == f"{probes.__name__}.{module.name}"
        ]
    return sorted(found, key=lambda probe: (probe.share, probe.name))
