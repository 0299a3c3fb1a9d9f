"""The probes' budget, and what they leave as it was."""

import copy
import random
import threading
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger

from lightning_dlopt import MLP, CosineLR, Digits, ImageClassifier, MixUp
from lightning_dlopt.core import ArgumentError
from lightning_dlopt.evidence.advise.advise import advise
from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError, NoTimeError
from lightning_dlopt.evidence.advise.probe import Probe, find_probes
from lightning_dlopt.evidence.advise.probes.gradient_tail import GradientTail
from lightning_dlopt.evidence.advise.probes.one_batch import OneBatch
from lightning_dlopt.evidence.advise.probes.rate_range import RateRange
from lightning_dlopt.evidence.advise.probes.train_gap import TrainGap
from lightning_dlopt.evidence.advise.subject import Subject
from tests.evidence.advise.faulty import Blobs, Clock, Net
from tests.evidence.advise.probing import seeded


def global_states() -> list[Any]:
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return [torch.get_rng_state().tolist(), random.getstate(), name, list(keys), *rest]


class Draws(Probe):
    """Draws from every generator, trains, and fails."""

    name, questions = "draws", ("rate",)

    def run(self, subject: Subject) -> list[Finding]:
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
        subject.train(max_steps=2)
        raise ValueError("no more")


class Takes(Probe):
    """Takes its time, or as much of it as it is given."""

    questions = ("rate",)

    def __init__(self, clock: Clock, share: float, needs: float) -> None:
        self.clock, self.needs = clock, needs
        self.name, self.share = f"takes {needs:g}", share  # type: ignore[misc]

    def run(self, subject: Subject) -> list[Finding]:
        self.given = subject.seconds_left()
        self.clock.time += self.needs
        return [Finding(self.name, "rate", f"{self.needs} s", "It took that.")]


class Ticks(Callback):
    """A second for each step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_start(self, *_: Any) -> None:
        self.clock.time += 1


def parts(kind: str) -> tuple[Any, Any]:
    if kind == "digits":
        network = seeded(MLP, [64, 32, 10])
        return ImageClassifier(network, schedule=CosineLR()), Digits(augmentation=MixUp())
    return seeded(Net), Blobs()


@pytest.mark.parametrize("kind", ["digits", "other"])
def test_module_data_generators_and_disk_are_as_before(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module, data = parts(kind)
    trainer = Trainer(accelerator="cpu", logger=CSVLogger("logs"), max_epochs=1)
    before = copy.deepcopy(module.state_dict())
    attributes = [set(vars(module)), set(vars(data)), vars(trainer)["callbacks"][:]]
    states = global_states()
    advice = advise(Subject(module, data, trainer), 60, [Draws(), *find_probes()])
    assert global_states() == states
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())
    assert [set(vars(module)), set(vars(data)), vars(trainer)["callbacks"]] == attributes
    assert all(p.grad is None for p in module.parameters())
    assert module.training
    assert getattr(data, "train_set", None) is None
    assert list(tmp_path.rglob("*")) == []
    assert {one.probe: one.not_done for one in advice.outcomes}["draws"] == "ValueError: no more"


def test_figures_are_the_same_each_time_and_in_any_order() -> None:
    probes: list[Probe] = [GradientTail(), OneBatch(), TrainGap(), RateRange()]

    def figures(order: list[Probe]) -> dict[str, Any]:
        advice = advise(Subject(*parts("digits")), 1000, order)
        return {one.probe: [f.to_json() for f in one.findings] for one in advice.outcomes}

    first = figures(probes)
    assert all(first.values())
    assert figures(probes[::-1]) == first


def test_each_probe_gets_its_share_of_the_time_that_is_left() -> None:
    clock = Clock()
    probes = [Takes(clock, 1, 4), Takes(clock, 3, 36), Takes(clock, 4, 1)]
    told: list[str] = []
    advice = advise(Subject(Net(), Blobs(), clock=clock), 40, probes, told.append)
    assert probes[0].given == 40 / 8
    assert probes[1].given == pytest.approx(36 * 3 / 7)
    assert [one.seconds for one in advice.outcomes] == [4, 36, 0]
    assert advice.outcomes[2].not_done == "the budget of 40 s was used up before it"
    assert told == ["takes 4", "takes 36"]


def test_a_probe_with_too_little_time_has_what_is_left_at_the_end() -> None:
    clock = Clock()

    class Needs(Takes):
        def run(self, subject: Subject) -> list[Finding]:
            if subject.seconds_left() < self.needs:
                raise NoTimeError(f"{self.needs} s are needed")
            return super().run(subject)

    probes = [Needs(clock, 1, 10), Takes(clock, 3, 5), Needs(clock, 4, 90)]
    advice = advise(Subject(Net(), Blobs(), clock=clock), 40, probes)
    assert [one.probe for one in advice.outcomes] == ["takes 5", "takes 10", "takes 90"]
    assert probes[0].given == 35
    assert advice.outcomes[2].not_done == "90 s are needed"


def test_a_run_ends_with_its_time_and_that_is_told() -> None:
    clock = Clock()
    subject = Subject(Net(), Blobs(), clock=clock)
    subject.allow(5)
    training = subject.train([Ticks(clock)], max_steps=20)
    assert (training.steps, training.cut_off, len(training.losses)) == (5, True, 5)
    assert subject.cut_off == "a run of 20 steps after 5"


def test_fewer_steps_where_a_step_takes_long() -> None:
    clock = Clock()
    subject = Subject(Net(clock=clock), Blobs(), clock=clock)  # 10 ms for each step
    subject.allow(0.54)
    assert subject.affordable(100, 20) == 50  # after 4 steps to see how long they take
    assert subject.cut_off == "runs of 50 steps instead of 100"
    assert subject.affordable(40, 20) == 40
    with pytest.raises(NotDoneError, match="120 steps, the fewest that say anything, need 1 s"):
        subject.affordable(100, 40, runs=3)


def test_a_run_is_on_the_batches_that_it_is_given() -> None:
    subject = Subject(seeded(Net), Blobs())
    batches = subject.batches(2)
    seen: list[Any] = []

    class Sees(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, _: int) -> None:
            seen.append(batch[0].clone())
            batch[0].zero_()

    subject.train([Sees()], max_steps=4, batches=batches)
    assert all(torch.equal(seen[i], batches[i % 2][0]) for i in range(4))
    assert len(subject.batches(1000)) == 100  # as many as there are
    assert subject.batches(3, "val")[2][0].shape == (100, 16)


def test_weights_that_are_held_give_gradients_at_one_point() -> None:
    subject = Subject(seeded(Net), Blobs())
    subject.module.eval()
    batch = subject.batches(1)
    held = subject.train(max_steps=3, batches=batch, hold_weights=True)
    after = held.module.state_dict()
    assert all(torch.equal(after[name], x) for name, x in subject.module.state_dict().items())
    assert held.optimizers[0].param_groups[0]["lr"] == 0.003  # without the schedule's factor


def test_an_optimizer_made_outside_the_module_trains_the_copy() -> None:
    module = seeded(Net)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    hook = partial(LightningCLI.configure_optimizers, optimizer=optimizer, lr_scheduler=schedule)
    module.configure_optimizers = MethodType(hook, module)
    before, first = copy.deepcopy(module.state_dict()), "network.0.weight"
    training = Subject(module, Blobs()).train(max_steps=5)
    assert training.losses[-1] < training.losses[0]
    assert not torch.equal(training.module.state_dict()[first], before[first])
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())
    assert not optimizer.state


def test_what_stands_for_no_data_and_no_copy() -> None:
    module = Net()
    module.lock = threading.Lock()  # type: ignore[assignment]
    advice = advise(Subject(module, Blobs()), 10, find_probes()[:1])
    assert advice.outcomes[0].not_done is not None
    assert "can't be copied" in advice.outcomes[0].not_done
    with pytest.raises(NotDoneError, match="no training data"):
        Subject(Net()).train(max_steps=1)


@pytest.mark.parametrize("budget", [0, -1.0, float("nan")])
def test_a_budget_of_nothing_is_refused(budget: float) -> None:
    with pytest.raises(ArgumentError, match="budget"):
        advise(Subject(Net(), Blobs()), budget)


def test_a_suggestion_without_severity_is_refused() -> None:
    with pytest.raises(ArgumentError, match="exactly if severity"):
        Finding("a", "rate", "1", "why", suggestion="do it")
    with pytest.raises(ArgumentError, match="exactly if severity"):
        Finding("a", "rate", "1", "why", severity=0.5)
