"""Runs of one probe on planted modules and data."""

from typing import Any

import torch

from lightning_dlopt.evidence.advise.finding import Finding
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.subject import Subject


def probe(one: Probe, module: Any, data: Any = None, **options: Any) -> list[Finding]:
    """Return what a probe finds, with time enough."""
    subject = Subject(module, data, **options)
    subject.allow(1000)
    with subject.isolated():
        return one.run(subject)


def seeded(make: Any, *arguments: Any, seed: int = 1, **options: Any) -> Any:
    """Return a module whose initial weights are those of a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(*arguments, **options)
