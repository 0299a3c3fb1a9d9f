"""Modules and data for the tests of ``dlopt export``."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_dlopt import Digits, ImageClassifier


class OwnExample(BoringModel):
    """Brings its example, and makes its layer in ``setup``; it has no DataModule."""

    def __init__(self) -> None:
        super().__init__()
        self.example_input_array = torch.ones(2, 32)

    def setup(self, stage: str) -> None:
        self.layer = nn.Linear(32, 3)

    def loss(self, preds: Tensor, labels: Any = None) -> Tensor:
        return preds.square().mean()


class Spectrum(ImageClassifier):
    """Calls what ONNX doesn't have."""

    def forward(self, inputs: Tensor) -> Tensor:
        values = torch.linalg.eigvalsh(inputs.squeeze(1))
        return super().forward(inputs) + values.mean()


class Branching(ImageClassifier):
    """Asks a tensor's value what to do."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs if inputs.sum() > 0 else -inputs)


class Unusable(ImageClassifier):
    """Has its computation in the steps only."""

    forward = nn.Module.forward  # type: ignore[assignment]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = self.network(batch[0]).square().mean()
        return loss


class Takes(LightningModule):
    """Takes a text and, if there is one, its mask."""

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        return tokens if mask is None else tokens * mask


class TakesTwo(LightningModule):
    def forward(self, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
        return (left + right) * scale


class Batches(LightningDataModule):
    """Gives batches as they are, and doubles them where Lightning would transfer them."""

    def __init__(self, val: Any = None, train: Any = None) -> None:
        super().__init__()
        self.val, self.train, self.calls = val, train, list[str]()

    def prepare_data(self) -> None:
        self.calls.append("prepare")

    def setup(self, stage: str) -> None:
        self.calls.append(stage)

    def val_dataloader(self) -> Any:
        return [] if self.val is None else {"first": self._loader(self.val), "other": None}

    def train_dataloader(self) -> Any:
        return self._loader(self.train)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {**batch, "tokens": batch["tokens"] * 2} if isinstance(batch, dict) else batch

    def _loader(self, batch: Any) -> Any:
        return DataLoader([batch], batch_size=None)


class AsksTrainer(ImageClassifier):
    """Its hook looks at the Trainer; its ``forward`` could log only in a loop, or without one."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [-batch[0], batch[1]] if self.trainer.training else batch

    def forward(self, inputs: Tensor) -> Tensor:
        assert self._trainer is None or self._trainer.state.stage is not None
        return super().forward(inputs)


class AskingDigits(Digits):
    """Divides its batches among the Trainer's processes, as many users' DataModules do."""

    def setup(self, stage: str | None = None) -> None:
        assert self.trainer is not None
        self.batch_size = 32 // self.trainer.world_size
        super().setup(stage)  # type: ignore[arg-type]
