"""The classifier of texts trains, and says when network and data don't fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.data import TextClassification
from lightning_dlopt.modules import TextClassifier
from lightning_dlopt.structure import AttentionNet, RecurrentNet, ResNet9
from tests.quiet import QUIET


@pytest.fixture
def data(tmp_path: Path) -> TextClassification:
    rows = [f"w{n % 9} {('good', 'bad', 'odd')[n % 3]} w{n % 7},{n % 3}\n" for n in range(240)]
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(rows))
    return TextClassification(tmp_path / "t.csv", test=0.25, batch_size=16)


def fit(network: nn.Module, data: TextClassification, num_classes: int = 3, **more: Any) -> Trainer:
    torch.manual_seed(0)
    module = TextClassifier(network, num_classes, lambda p: torch.optim.Adam(p, lr=0.02))
    trainer = Trainer(**QUIET, max_epochs=8, **more)
    trainer.fit(module, datamodule=data)
    return trainer


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("build", [RecurrentNet, AttentionNet, ResNet9])
def test_it_learns_the_word_that_tells(
    data: TextClassification, build: Any, precision: Any
) -> None:
    trainer = fit(build(vocab_size=50, num_classes=3, width=16), data, precision=precision)
    (result,) = trainer.test(trainer.lightning_module, datamodule=data, verbose=False)
    assert result["test_accuracy"] > 0.95


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_every_command_compares_network_and_data(data: TextClassification, command: str) -> None:
    for network, num_classes, message in (
        (
            RecurrentNet(50, 3, width=4, pad_id=7),
            3,
            r"has pad_id=0, but .* RecurrentNet has pad_id=7",
        ),
        (RecurrentNet(10, 3, width=4), 3, r"14 token ids, .* RecurrentNet has vocab_size=10: .*"),
        (AttentionNet(50, 2, width=4), 2, r"3 classes, .* AttentionNet has num_classes=2"),
        (RecurrentNet(50, 3, width=4), 2, r"num_classes=2, but TextClassification has 3 classes"),
    ):
        run = getattr(Trainer(**QUIET, max_epochs=1), command)
        with pytest.raises(ArgumentError, match=f"^TextClassifier: .*{message}"):
            run(TextClassifier(network, num_classes), datamodule=data)


def test_a_network_that_says_nothing_of_its_size_is_left_alone(data: TextClassification) -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.EmbeddingBag(50, 3, padding_idx=0)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.table(tokens)
            return logits

    fit(Bag(), data)
