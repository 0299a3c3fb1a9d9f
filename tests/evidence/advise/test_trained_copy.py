"""The short run that probes share, and a training step that is run alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_dlopt.evidence.advise.finding import NotDoneError
from lightning_dlopt.evidence.advise.subject import Subject
from lightning_dlopt.evidence.advise.trained_copy import STEPS, run_training_step, trained_copy
from tests.evidence.advise.planted import Manual, Model, Tensors, blobs, network


class Ticking:
    """A clock that goes by a second at each look."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


def test_probes_share_one_run() -> None:
    subject = Subject(Model(network(16, 8, 4)), Tensors(*blobs()))
    first, second = trained_copy(subject), trained_copy(subject)
    assert (first.steps, first.epoch) == (STEPS, 20)
    assert first.module is not second.module
    for one, other in zip(first.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        first.module.network[1].weight.zero_()
    third = trained_copy(subject).module
    assert torch.equal(third.network[1].weight, second.module.network[1].weight)


def test_a_run_whose_time_was_over_goes_on() -> None:
    subject = Subject(Model(network(16, 8, 4)), Tensors(*blobs()), clock=Ticking())
    steps = []
    for _ in range(3):
        subject.allow(40)
        steps.append(trained_copy(subject).steps)
        assert subject.cut_off is None
    assert 0 < steps[0] < steps[1] < steps[2] < STEPS


def test_losses_and_predictions_by_hand_and_nothing_changes() -> None:
    inputs, targets = blobs(64)
    net = nn.Sequential(
        nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4)
    )
    module = trained_copy(Subject(Model(net), Tensors(*blobs()))).module
    module.network[0].eval()  # modes are put back one by one
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    results = run_training_step(module, [(inputs, targets)])
    training = run_training_step(module, [(inputs, targets)], training=True)
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    logits = module.network.eval()(inputs)
    loss = float(functional.cross_entropy(logits, targets).detach())
    assert results.losses == [pytest.approx(loss, rel=1e-6)]
    assert training.losses[0] != pytest.approx(loss, rel=1e-3)
    assert torch.equal(results.predictions[0].predicted, logits.argmax(1))
    assert torch.equal(results.predictions[0].targets, targets)


def test_manual_optimization_is_refused() -> None:
    with pytest.raises(NotDoneError, match="Manual optimizes manually"):
        trained_copy(Subject(Manual(network(16, 4)), Tensors(*blobs())))
