"""Batches that are far from the gradient noise scale."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_dlopt import Digits, ImageClassifier
from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError
from lightning_dlopt.evidence.advise.probes.gradient_noise import GradientNoise
from lightning_dlopt.evidence.advise.subject import Subject
from tests.evidence.advise.planted import Manual, Model, Tensors, blobs, network, run
from tests.quiet import QUIET


class Point(nn.Module):
    """A weight that the samples pull at."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight - x


def pull(distance: float, spread: float, batch_size: int, count: int = 4000) -> Subject:
    """Return a problem whose gradients have the mean and the noise that is asked for."""
    generator = torch.Generator().manual_seed(0)
    samples = distance + spread * torch.randn(count, 10, generator=generator)
    model = Model(
        Point(), loss=lambda x, _: x.square().sum(1).mean() / 2, lr=1e-9, optimizer=torch.optim.SGD
    )
    data = Tensors(samples, torch.zeros(count), batch_size)
    config = {"data": {"class_path": "X", "init_args": {"batch_size": batch_size}}}
    return Subject(model, data, config=config)


def one(subject: Subject) -> Finding:
    (finding,) = run(GradientNoise(), subject)
    return finding


def test_the_scale_of_a_known_problem() -> None:
    # gradients are -samples: |G|^2 is 10 * 0.5^2, the trace of their covariance 10 * 2^2
    finding = one(pull(0.5, 2.0, 16))
    assert finding.data["low"] < 16 < finding.data["high"]
    assert finding.data["scale"] == pytest.approx(16, rel=0.3)
    assert finding.severity == 0


def test_a_batch_far_too_large() -> None:
    finding = one(pull(2.0, 1.0, 128))  # the scale is 0.25
    assert finding.severity > 0
    assert finding.overlay == {"data": {"init_args": {"batch_size": 32}}}


def test_a_batch_far_below_the_noise() -> None:
    finding = one(pull(0.02, 2.0, 4))  # the scale is 10,000
    assert 0 < finding.severity <= 0.1  # no fault, but a chance
    assert finding.overlay == {"data": {"init_args": {"batch_size": 16}}}


def test_larger_steps_by_accumulation_where_no_key_is_known() -> None:
    subject = pull(0.02, 2.0, 4)
    subject.config = {}
    assert one(subject).overlay == {"trainer": {"accumulate_grad_batches": 4}}


def test_accumulated_batches_are_one() -> None:
    trainer = Trainer(accumulate_grad_batches=4, **QUIET)
    subject = pull(0.5, 2.0, 4)
    subject = Subject(subject.module, subject.data, trainer)
    finding = one(subject)
    assert finding.data["batch_size"] == 16
    assert finding.data["low"] < 16 < finding.data["high"]


@pytest.mark.parametrize("seed", range(3))
def test_digits_give_no_alarm(seed: int) -> None:
    torch.manual_seed(seed)
    subject = Subject(ImageClassifier(network(64, 128, 128, 10)), Digits(), seed=seed)
    finding = one(subject)
    assert finding.severity <= 0.1
    assert finding.data["scale"] > 1


class Frozen(Model):
    """A part of it is frozen, and a part gets no gradient."""

    def __init__(self) -> None:
        super().__init__(network(16, 8, 4))
        self.unused, self.frozen = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)


def test_what_can_not_be_probed_says_why() -> None:
    few = Tensors(*blobs(64), batch_size=16)
    cases: list[tuple[Any, Any, str]] = [
        (Manual(network(16, 8, 4)), Tensors(*blobs()), "manual optimization"),
        (Model(network(16, 8, 4)), few, "an epoch has 4 batches of 16 samples; 8 are needed"),
    ]
    for module, data, why in cases:
        with pytest.raises(NotDoneError, match=why):
            one(Subject(module, data))
    assert one(Subject(Frozen(), Tensors(*blobs()))).data["gradients"] == 10
