"""What the tests of TieParameters train."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt.structure import StructureMixin
from tests.quiet import QUIET

WORDS, WIDTH, BATCHES, RATE = 300, 16, 4, 0.1
PAIRS = [("net.decoder.weight", "net.embedding.weight")]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.decoder = nn.Linear(WIDTH, WORDS)

    def forward(self, words: Tensor) -> Tensor:
        return self.decoder(self.embedding(words).mean(1))  # type: ignore[no-any-return]


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    draw = [torch.randint(WORDS, (8, 5), generator=generator) for _ in range(BATCHES)]
    return [(words[:, 1:], words[:, 0]) for words in draw]


class LanguageModel(LightningModule):
    """Predicts a word from four others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Net()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        words, target = batch
        return functional.cross_entropy(self.net(words), target)

    test_step = training_step

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(batches(), batch_size=None)  # type: ignore[arg-type]

    test_dataloader = train_dataloader

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=RATE)


class Brought(StructureMixin, LanguageModel):
    pass


def fit(module: LightningModule, *callbacks: Any, **arguments: Any) -> Trainer:
    trainer = Trainer(callbacks=list(callbacks), **{**QUIET, "max_epochs": 2, **arguments})
    trainer.fit(module)
    return trainer


def is_tied(module: Any) -> bool:
    return module.net.decoder.weight is module.net.embedding.weight
