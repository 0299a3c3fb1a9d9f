"""A small convolutional module, and what trains it."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

from lightning_dlopt import TensorLoader
from tests.quiet import QUIET


class Images(LightningModule):
    """Convolutions of 3 x 3 and of 1 x 1, one of them with groups, without norms."""

    optimizer: Any = torch.optim.AdamW
    options: dict[str, Any] = {"lr": 0.01, "fused": True}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(2, 8, 1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=2),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 6, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 3),
        )

    def forward(self, x: Tensor) -> Any:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.training_step(batch, batch_idx))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", Images.training_step(self, batch, batch_idx))

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch[0])

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters(), **self.options)


def loader() -> TensorLoader:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(24, 2, 8, 8, generator=generator)
    y = torch.randint(3, (24,), generator=generator)
    return TensorLoader(x, y, batch_size=8, shuffle=True)


def trainer_with(*callbacks: Callback, **settings: Any) -> Trainer:
    saving = any(isinstance(callback, Checkpoint) for callback in callbacks)
    arguments = {**QUIET, "enable_checkpointing": saving, "devices": 1, "max_epochs": 2}
    return Trainer(**{**arguments, **settings}, callbacks=list(callbacks))


def fit(
    module: LightningModule, *callbacks: Callback, resume: Path | None = None, **settings: Any
) -> dict[str, Tensor]:
    """Train and return the weights."""
    trainer_with(*callbacks, **settings).fit(module, loader(), loader(), ckpt_path=resume)
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert list(left) == list(right)
    for name, value in left.items():
        assert torch.equal(value, right[name]), name
