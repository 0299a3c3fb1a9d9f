"""Data of token ids, and a network for them, for recipes that edit tokens."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from lightning_dlopt import TensorLoader

SIZE = 50

#: What of the quickstart is another for them.
MODEL = {"network": {"class_path": "tests.recipes.text.BagOfTokens"}}
DATA = {"class_path": "tests.recipes.text.Sentences"}


class BagOfTokens(nn.Module):
    """Maps the mean of the tokens' vectors to ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(20_000, 16, padding_idx=0)
        self.head = nn.Linear(16, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.head(self.vectors(tokens).mean(1))
        return result


class Sentences(LightningDataModule):
    """Sequences of 5 to 20 tokens, padded with 0; the class is the first token's last digit."""

    def train_dataloader(self) -> Any:
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(2, SIZE, (128, 20), generator=generator)
        lengths = torch.randint(5, 21, (128, 1), generator=generator)
        tokens = torch.where(torch.arange(20) < lengths, tokens, 0)
        return TensorLoader(tokens, tokens[:, 0] % 10, batch_size=32)

    val_dataloader = train_dataloader
