"""The classifier against a hand-written training loop, with hard and soft labels."""

import copy
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional

from lightning_dlopt.data import Digits, TensorLoader
from lightning_dlopt.modules import ImageClassifier
from lightning_dlopt.schedules import LinearLR
from lightning_dlopt.structure import MLP
from tests.quiet import QUIET


def loader(soft: bool = False, shuffle: bool = False) -> TensorLoader:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 1, 2, 3, generator=generator)
    targets = torch.randint(4, (50,), generator=generator)
    if soft:
        targets = functional.one_hot(targets, 4) * 0.7 + 0.075
    return TensorLoader(inputs, targets, batch_size=8, shuffle=shuffle)


def trainer(**arguments: Any) -> Trainer:
    return Trainer(**QUIET, **arguments)


@pytest.mark.parametrize("soft", [False, True])
def test_it_trains_as_a_hand_written_loop_does(soft: bool) -> None:
    classifier = ImageClassifier(
        MLP([6, 8, 4]), 4, lambda p: torch.optim.SGD(p, lr=0.5), schedule=LinearLR()
    )
    network = copy.deepcopy(classifier.network)
    trainer(max_epochs=3).fit(classifier, loader(soft, shuffle=True))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    data, step = loader(soft, shuffle=True), 0
    for _ in range(3):
        for inputs, targets in data:
            optimizer.param_groups[0]["lr"] = 0.5 * (1 - step / 21)
            optimizer.zero_grad()
            functional.cross_entropy(network(inputs), targets).backward()
            optimizer.step()
            step += 1
    for ours, theirs in zip(classifier.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("soft", [False, True])
def test_metrics_are_those_of_the_whole_set(soft: bool) -> None:
    classifier = ImageClassifier(MLP([6, 4]), 4)
    (test,) = trainer().test(classifier, loader(soft), verbose=False)
    (validation,) = trainer().validate(classifier, loader(soft), verbose=False)
    whole = loader(soft)
    logits = classifier.network(whole.inputs)
    hard = whole.targets.argmax(1) if soft else whole.targets
    accuracy = float((logits.argmax(1) == hard).float().mean())
    # 50 = 6 batches of 8 and one of 2: the last one counts for as much as it holds
    loss = float(functional.cross_entropy(logits, whole.targets))
    assert test == pytest.approx({"test_accuracy": accuracy, "test_loss": loss}, rel=1e-5)
    assert validation == pytest.approx({"val_accuracy": accuracy, "val_loss": loss}, rel=1e-5)


def test_prediction_gives_probabilities() -> None:
    batches = trainer().predict(ImageClassifier(MLP([6, 4]), 4), loader())
    assert batches is not None
    total = torch.cat(batches).sum(1)  # type: ignore[arg-type]
    torch.testing.assert_close(total, torch.ones(50))


def test_frozen_parameters_are_not_given_to_the_optimizer() -> None:
    classifier = ImageClassifier(MLP([6, 8, 4]), 4)
    classifier.network[1].requires_grad_(False)
    groups = classifier.configure_optimizers().param_groups
    assert [tuple(p.shape) for p in groups[0]["params"]] == [(4, 8), (4,)]


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_data_with_more_classes(command: str) -> None:
    run = getattr(trainer(max_epochs=1), command)
    with pytest.raises(ValueError, match=r"ImageClassifier: num_classes=4, but Digits has 10 clas"):
        run(ImageClassifier(MLP([64, 4]), 4), datamodule=Digits())


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"ImageClassifier: num_classes=1 is not in \[2, inf\)"):
        ImageClassifier(MLP([6, 4]), 1)
    with pytest.raises(TypeError, match="schedule='cosine'"):
        ImageClassifier(MLP([6, 4]), 4, schedule="cosine")  # type: ignore[arg-type]
