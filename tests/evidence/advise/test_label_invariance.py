"""Transforms that change labels, and those that don't, found on a trained copy."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import Digits, ImageClassifier, RandomGeometry
from lightning_dlopt.evidence.advise.finding import NotDoneError
from lightning_dlopt.evidence.advise.probes.label_invariance import LabelInvariance
from lightning_dlopt.evidence.advise.subject import Subject
from tests.evidence.advise.planted import (
    DIRECTIONS,
    Manual,
    Model,
    Tensors,
    arrows,
    blobs,
    network,
    run,
)
from tests.quiet import QUIET


def arrow_subject(directions: int = 4, **options: Any) -> Subject:
    inputs, targets = arrows(directions=directions)
    data = Tensors(inputs, targets, classes=DIRECTIONS)
    return Subject(Model(network(64, 32, directions)), data, **options)


def test_arrows_that_a_flip_turns_round() -> None:
    flip, vertical, rest = run(LabelInvariance(), arrow_subject())
    assert flip.data["transform"] == "flip"
    assert flip.data["taken_for_each_other"] == [["right", "left"]]
    assert flip.data["transformed"] < 0.6 < 0.95 < flip.data["plain"]
    assert vertical.data["transform"] == "vertical_flip"
    assert vertical.data["taken_for_each_other"] == [["up", "down"]]
    assert (flip.severity, vertical.severity) == (0.0, 0.0)  # the run doesn't use them
    suggested = str(rest.overlay)
    assert "rotation" in suggested
    assert "flip" not in suggested


def test_a_model_that_has_learned_little_suggests_nothing() -> None:
    inputs, targets = arrows()
    targets = torch.where(torch.arange(len(targets)) % 2 == 0, targets, targets[0])
    subject = Subject(Model(network(64, 4), lr=0.003), Tensors(inputs, targets))
    rest = run(LabelInvariance(), subject)[-1]
    assert rest.severity == 0
    assert "too little" in rest.reason


def test_left_and_right_alone_are_wrong_altogether() -> None:
    flip = run(LabelInvariance(), arrow_subject(2))[0]
    assert flip.data["transformed"] < 0.05
    assert flip.data["taken_for_each_other"] == [["right", "left"]]


def test_a_run_that_uses_such_a_flip_is_warned() -> None:
    callback = {"class_path": "RandomGeometry", "init_args": {"flip": 0.5, "rotation": 5}}
    other = {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val_accuracy"}}
    config = {"trainer": {"callbacks": [other, callback], "max_epochs": 3}}
    trainer = Trainer(callbacks=[RandomGeometry(flip=0.5, rotation=5)], **QUIET)
    flip, vertical, rest = run(LabelInvariance(), arrow_subject(trainer=trainer, config=config))
    assert flip.severity == 0.9
    assert flip.suggestion is not None
    assert "flip" in flip.suggestion
    changed = {"class_path": "RandomGeometry", "init_args": {"flip": 0.0, "rotation": 5}}
    assert flip.overlay == {"trainer": {"callbacks": [other, changed]}}
    assert vertical.severity == 0.0
    assert rest.severity == 0.0  # a second RandomGeometry isn't suggested
    assert flip.arm != vertical.arm


@pytest.mark.parametrize("seed", range(3))
def test_digits_give_no_alarm(seed: int) -> None:
    torch.manual_seed(seed)
    subject = Subject(ImageClassifier(network(64, 64, 10)), Digits(), seed=seed)
    findings = run(LabelInvariance(), subject)
    assert all(one.severity <= 0.1 for one in findings)
    (suggestion,) = (one for one in findings if one.overlay)
    (callback,) = suggestion.overlay["trainer"]["callbacks+"]
    assert callback["class_path"] == "RandomGeometry"
    assert "rotation" in callback["init_args"]
    assert not {"flip", "vertical_flip"} & set(callback["init_args"])


class Bags(nn.Module):
    """Texts by the mean of their words' embeddings, or by their first word."""

    def __init__(self, first_only: bool) -> None:
        super().__init__()
        self.embedding, self.first_only = nn.Embedding(50, 16), first_only
        self.out = nn.Linear(16, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        words = self.embedding(tokens)
        return self.out(words[:, 0] if self.first_only else words.mean(1))


@pytest.mark.parametrize("first_only", [False, True])
def test_texts(first_only: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(1, 50, (640, 12), generator=generator)
    tokens[:, 8:] = torch.where(torch.rand(640, 4, generator=generator) < 0.5, 0, tokens[:, 8:])
    tokens[:, 8:] = tokens[:, 8:].sort(1, descending=True).values
    score = tokens[:, 0] if first_only else (tokens > 25).sum(1) * 2 - (tokens > 0).sum(1) + 25
    subject = Subject(Model(Bags(first_only)), Tensors(tokens, (score > 25).long()))
    finding = run(LabelInvariance(), subject)[-1]
    assert set(finding.data["transformed"]) == {"token deletion", "token swaps"}
    if not first_only:
        names = [one["class_path"] for one in finding.overlay["trainer"]["callbacks+"]]
        assert "SwapTokens" in names  # a bag of words has no order
        assert finding.data["transformed"]["token swaps"]["kept"] == 1.0
    else:
        assert finding.data["transformed"]["token swaps"]["kept"] < 1.0


def dict_step(self: Model, batch: Any) -> dict[str, Tensor]:
    return {"loss": functional.cross_entropy(self.network(batch["image"]), batch["label"])}


class DictModel(Model):
    """Batches are dicts, the step takes no index and returns a dict; loaders are its own."""

    training_step = dict_step

    def train_dataloader(self) -> Any:
        inputs, targets = arrows()
        samples = [{"image": x, "label": y} for x, y in zip(inputs, targets, strict=True)]
        return torch.utils.data.DataLoader(samples, 32)


def test_batches_that_are_dicts_from_a_module_with_its_own_loader() -> None:
    flip = run(LabelInvariance(), Subject(DictModel(network(64, 32, 4))))[0]
    assert flip.data["taken_for_each_other"] == [["0", "1"]]


def test_what_can_not_be_probed_says_why() -> None:
    pictures, targets = arrows()
    points, classes = blobs()
    cases = [
        (Model(network(16, 8, 4)), Tensors(points, classes), "neither images .* nor tokens"),
        (Manual(network(64, 8, 4)), Tensors(pictures, targets), "optimizes manually"),
        (
            Model(network(64, 8, 1), loss=lambda x, y: (x[:, 0] - y).square().mean()),
            Tensors(pictures, targets.float()),
            "no cross-entropy",
        ),
        (
            Model(network(64, 8, 4), lr=0.0),
            Tensors(pictures, targets),
            "after 300 steps the model is right on .* guessing",
        ),
    ]
    for module, data, why in cases:
        with pytest.raises(NotDoneError, match=why):
            run(LabelInvariance(), Subject(module, data))
