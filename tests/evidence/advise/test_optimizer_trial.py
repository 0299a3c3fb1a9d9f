"""Short runs with other optimizers."""

from functools import partial
from typing import Any

import pytest
import torch

from lightning_dlopt import MLP, Digits, ImageClassifier
from lightning_dlopt.evidence.advise.finding import ALARM, NotDoneError
from lightning_dlopt.evidence.advise.probes.optimizer_trial import CANDIDATES, OptimizerTrial
from tests.evidence.advise.faulty import Blobs, Net
from tests.evidence.advise.probing import probe, seeded


def classifier(optimizer: Any) -> ImageClassifier:
    return ImageClassifier(seeded(MLP, [64, 32, 10]), optimizer=optimizer)


def test_the_losses_are_those_of_loops_by_hand() -> None:
    module = classifier(partial(torch.optim.SGD, lr=0.05))
    (found,) = probe(OptimizerTrial(), module, Digits(batch_size=32))
    data = Digits(batch_size=32)
    data.setup("fit")
    batches = [batch for _, batch in zip(range(60), _endless(data), strict=False)]
    for name, make in {
        "SGD as configured": partial(torch.optim.SGD, lr=0.05),
        "SGD with momentum at 0.1": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    }.items():
        network = seeded(MLP, [64, 32, 10])
        optimizer = make(network.parameters())
        losses = []
        for inputs, targets in batches:
            loss = torch.nn.functional.cross_entropy(network(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
        expected = sum(losses[-15:]) / 15
        assert found.data["loss"][name] == pytest.approx(expected, rel=1e-4)
    assert set(found.data["loss"]) == {"SGD as configured", *CANDIDATES}


def _endless(data: Digits) -> Any:
    loader = data.train_dataloader()
    while True:
        yield from loader


def test_a_slow_optimizer_gives_an_idea_and_no_alarm() -> None:
    module = classifier(partial(torch.optim.SGD, lr=0.001))
    (found,) = probe(OptimizerTrial(), module, Digits(batch_size=32))
    assert 0 < found.severity < ALARM
    assert found.overlay is not None
    callback = found.overlay["trainer"]["callbacks+"][0]
    assert callback["class_path"] == "UseOptimizer"
    assert found.suggestion in CANDIDATES


def test_a_good_one_is_left_alone() -> None:
    module = classifier(partial(torch.optim.Adam, lr=0.005))
    (found,) = probe(OptimizerTrial(), module, Digits(batch_size=32))
    assert (found.severity, found.overlay) == (0, None)


def test_where_it_cannot_work_it_says_so() -> None:
    module = Net()
    module.automatic_optimization = False
    with pytest.raises(NotDoneError, match="by hand"):
        probe(OptimizerTrial(), module, Blobs())
    config = {"trainer": {"callbacks": [{"class_path": "lightning_dlopt.UseOptimizer"}]}}
    with pytest.raises(NotDoneError, match="UseOptimizer"):
        probe(OptimizerTrial(), Net(), Blobs(), config=config)
