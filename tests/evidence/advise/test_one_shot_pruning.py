"""Networks with weights to spare."""

import pytest
import torch
from torch import nn

from lightning_dlopt import Digits, ImageClassifier
from lightning_dlopt.evidence.advise.finding import NotDoneError
from lightning_dlopt.evidence.advise.probes.one_shot_pruning import OneShotPruning
from lightning_dlopt.evidence.advise.subject import Subject
from tests.evidence.advise.planted import Manual, Model, Tensors, blobs, network, run


def test_a_network_far_too_large_for_two_hundred_samples() -> None:
    inputs, targets = blobs(300)
    data = Tensors(inputs, targets, held_out=100)
    (finding,) = run(OneShotPruning(), Subject(Model(network(16, 512, 512, 4), lr=1e-3), data))
    assert finding.data["share"] > 0.7
    assert finding.overlay is not None
    assert finding.severity == 0.3
    assert "there are about 2" in finding.figure  # 200 samples, in whole batches
    (finding,) = run(OneShotPruning(), Subject(Model(network(16, 64, 64, 4)), data))
    assert finding.data["weights"] < 500 * 200
    assert finding.severity <= 0.1


def test_a_network_that_needs_its_weights() -> None:
    inputs, targets = blobs(640)
    (finding,) = run(OneShotPruning(), Subject(Model(network(16, 4)), Tensors(inputs, targets)))
    assert finding.data["share"] < 0.7
    assert finding.severity == 0


def test_the_loss_by_hand() -> None:
    inputs, targets = blobs(300)
    module = Model(network(16, 64, 4))
    subject = Subject(module, Tensors(inputs, targets, held_out=100))
    (finding,) = run(OneShotPruning(), subject)
    trained = subject.train(max_steps=300, plain=True).module
    weights = [trained.network[1].weight, trained.network[3].weight]
    sizes = torch.cat([weight.detach().abs().flatten() for weight in weights])

    def loss(share: float) -> float:
        count = round(share * len(sizes))
        limit = sizes.sort().values[count - 1] if count else -1.0
        layers = [weight.detach() * (weight.abs() > limit) for weight in weights]
        hidden = (inputs[:100] @ layers[0].T + trained.network[1].bias).relu()
        logits = hidden @ layers[1].T + trained.network[3].bias
        return float(nn.functional.cross_entropy(logits, targets[:100]).detach())

    share = finding.data["share"]
    untrained = nn.functional.cross_entropy(module.network(inputs[:100]), targets[:100])
    limit = loss(0.0) + 0.01 * (float(untrained.detach()) - loss(0.0))
    assert loss(share) <= limit
    assert loss(share + 1 / 16) > limit


@pytest.mark.parametrize("seed", range(3))
def test_digits_give_no_alarm(seed: int) -> None:
    torch.manual_seed(seed)
    subject = Subject(ImageClassifier(network(64, 128, 128, 10)), Digits(), seed=seed)
    (finding,) = run(OneShotPruning(), subject)
    assert finding.severity == 0


class Biases(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bias.expand(len(x), 4)


def test_what_can_not_be_probed_says_why() -> None:
    data = Tensors(*blobs())
    cases = [
        (Manual(network(16, 8, 4)), "optimizes manually"),
        (Model(network(16, 8, 4), lr=0.0), "which weights matter isn't decided"),
        (Model(network(16, 8, 4), lr=1e20), "isn't decided|not finite"),
        (Model(Biases()), "no weights of two or more dimensions"),
    ]
    for module, why in cases:
        with pytest.raises(NotDoneError, match=why):
            run(OneShotPruning(), Subject(module, data))
