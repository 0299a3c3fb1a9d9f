"""What probes say when they had little time, and of data and modules that leave little room."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_dlopt.evidence.advise.finding import ALARM, NoTimeError
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.probes.class_counts import ClassCounts
from lightning_dlopt.evidence.advise.probes.loader_time import LoaderTime
from lightning_dlopt.evidence.advise.probes.one_batch import OneBatch
from lightning_dlopt.evidence.advise.probes.train_gap import TrainGap
from lightning_dlopt.evidence.advise.subject import Subject
from tests.evidence.advise.faulty import Blobs, Clock, Net, Sleepy
from tests.evidence.advise.probing import probe, seeded


def within(one: Probe, seconds: float, module: Any, data: Any, clock: Clock) -> Any:
    subject = Subject(module, data, clock=clock)
    subject.allow(seconds)
    with subject.isolated():
        return one.run(subject)


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Samples without a length."""

    def __init__(self, data: Blobs) -> None:
        self.data = data

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.data.inputs[:-400], self.data.targets[:-400], strict=True)


class Streamed(Blobs):
    """Loads them."""

    def train_dataloader(self) -> Any:
        return DataLoader(Stream(self), batch_size=20)


def test_data_without_a_length_are_read() -> None:
    data = Streamed()
    assert len(Subject(Net(), data).batches(3)) == 3
    (found,) = probe(ClassCounts(), Net(), data)
    assert found.data["samples"] == 2000


@pytest.mark.parametrize("seconds", [0.5, 1.2, 2.0])
def test_a_slow_learner_is_no_alarm_before_other_rates_were_tried(seconds: float) -> None:
    clock = Clock()
    module = seeded(Net, rate=2e-5, clock=clock)
    with pytest.raises(NoTimeError, match="give a longer budget"):
        within(OneBatch(), seconds, module, Blobs(), clock)


def test_a_loader_is_found_even_if_it_leaves_time_for_a_few_steps_only() -> None:
    clock = Clock()
    module, data = Net(clock=clock), Sleepy(clock, 2.0)
    (found,) = within(LoaderTime(), 30, module, data, clock)
    assert found.is_alarm
    assert found.data["waiting_ms"] == pytest.approx(2000)


def test_a_few_short_waits_tell_nothing() -> None:
    clock = Clock()
    with pytest.raises(NoTimeError, match="steps are too few"):
        within(LoaderTime(), 0.07, Net(clock=clock), Sleepy(clock, 0.005), clock)


def test_a_trained_module_that_is_right_on_new_data_gets_an_idea_and_no_alarm() -> None:
    module, data = seeded(Net), Blobs(400, 16, 1.2)
    optimizer = torch.optim.Adam(module.network.parameters(), lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            module.network(data.inputs[:-400]), data.targets[:-400]
        )
        loss.backward()
        optimizer.step()
    found = probe(TrainGap(), module, data)
    assert found[0].data["loss_gap"] > 0.25
    assert found[0].data["train_accuracy"] - found[0].data["validation_accuracy"] < 0.05
    assert all(0 < one.severity < ALARM for one in found)
