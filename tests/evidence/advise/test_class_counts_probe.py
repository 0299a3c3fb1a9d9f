"""Rare classes and samples out of order, found on data."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_dlopt import Digits
from lightning_dlopt.evidence.advise.class_counts import count_repeats
from lightning_dlopt.evidence.advise.finding import NotDoneError
from lightning_dlopt.evidence.advise.probes.class_counts import ClassCounts
from lightning_dlopt.evidence.advise.subject import Subject
from tests.evidence.advise.planted import Model, Tensors, network, run

NAMES = [f"kind {index}" for index in range(50)]


def fifty(rare: int | None, each: int = 40) -> Tensor:
    """Return targets of fifty classes, of which one has a tenth of the others' samples."""
    targets = torch.arange(50).repeat_interleave(each)
    if rare is not None:
        which = (targets == rare).nonzero().flatten()
        keep = torch.ones(len(targets), dtype=torch.bool)
        keep[which[each // 10 :]] = False
        targets = targets[keep]
    return targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))]


def subject_of(targets: Tensor, **options: Any) -> Subject:
    data = Tensors(torch.zeros(len(targets), 16), targets, **options)
    return Subject(Model(network(16, 50)), data)


def test_one_class_in_fifty_is_rare() -> None:
    (finding,) = run(ClassCounts(), subject_of(fifty(17), classes=NAMES))
    assert finding.severity > 0.3
    assert finding.data["rare"] == ["kind 17"]
    assert "kind 17 (4)" in finding.figure
    assert finding.data["counts"]["kind 17"] == 4
    assert finding.overlay is None  # there is none of this package


def test_a_class_that_is_missing() -> None:
    targets = fifty(None)
    (finding,) = run(ClassCounts(), subject_of(targets[targets != 49], classes=NAMES))
    assert finding.data["rare"] == []  # nobody knows of it
    data = Tensors(torch.zeros(len(targets), 16)[targets != 49], targets[targets != 49])
    data.num_classes = 50
    (finding,) = run(ClassCounts(), Subject(Model(network(16, 50)), data))
    assert finding.data["rare"] == ["49"]


def test_balanced_classes_give_no_alarm() -> None:
    assert [one.severity for one in run(ClassCounts(), subject_of(fifty(None)))] == [0.0]
    assert [one.severity for one in run(ClassCounts(), Subject(Model(network(64, 10)), Digits()))]
    (finding,) = run(ClassCounts(), Subject(Model(network(64, 10)), Digits()))
    assert finding.severity == 0
    assert finding.data["samples"] == 1294


class Clock:
    """Each look at it takes a second."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


@pytest.mark.parametrize(("rare", "expected"), [(None, []), (17, ["17"])])
def test_a_part_of_the_set(rare: int | None, expected: list[str]) -> None:
    targets = fifty(rare, each=400)
    data = Tensors(torch.zeros(len(targets), 16), targets, 100)
    subject = Subject(Model(network(16, 50)), data, clock=Clock())
    subject.allow(150)
    (finding,) = run(ClassCounts(), subject)
    assert not finding.data["complete"]
    assert 10_000 < finding.data["samples"] < len(targets)
    assert finding.data["rare"] == expected
    assert subject.cut_off is not None


def test_samples_that_come_class_by_class() -> None:
    targets = fifty(None).sort().values
    order, balance = run(ClassCounts(), subject_of(targets, shuffle=False))
    assert order.severity > 0.5
    assert "shuffle" in str(order.suggestion)
    assert balance.severity == 0
    (balance,) = run(ClassCounts(), subject_of(targets, shuffle=True))
    assert balance.severity == 0
    subject = subject_of(targets, shuffle=False)
    subject.clock = Clock()
    subject.allow(5)
    (order,) = run(ClassCounts(), subject)  # nothing is said of the classes after the first few
    assert order.arm == "shuffle"


def test_repeats_by_simulation() -> None:
    generator = torch.Generator().manual_seed(1)
    classes = torch.arange(5).repeat_interleave(torch.tensor([10, 20, 30, 5, 35]))
    seen = [
        count_repeats(classes[torch.randperm(100, generator=generator)])[0] for _ in range(2000)
    ]
    _, expected, error = count_repeats(classes)
    assert abs(sum(seen) / 2000 - expected) < 4 * torch.tensor(seen).std() / 2000**0.5
    assert error == pytest.approx(float(torch.tensor(seen).std()), rel=0.2)


def test_the_dominant_class_is_named() -> None:
    targets = torch.cat([torch.zeros(900, dtype=torch.long), torch.arange(1, 11).repeat(20)])
    (finding,) = run(ClassCounts(), subject_of(targets, classes=NAMES[:11]))
    assert finding.severity > 0
    assert "kind 0 has 900 of 1100" in finding.figure


@pytest.mark.parametrize(
    ("targets", "why"),
    [
        (torch.rand(64), "torch.float32 .* aren't one class"),
        (torch.zeros(64, 8, 8, dtype=torch.long), "aren't one class"),
        (torch.zeros(64, dtype=torch.long), "one value only"),
    ],
)
def test_what_is_no_class_a_sample(targets: Tensor, why: str) -> None:
    with pytest.raises(NotDoneError, match=why):
        run(ClassCounts(), subject_of(targets))
