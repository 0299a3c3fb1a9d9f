"""A module whose setup makes its layers for every training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import (
    BlurPool,
    GhostBatchNorm,
    LowRank,
    SqueezeExcite,
    TensorLoader,
    WeightStandardization,
)
from lightning_dlopt.structure import load_from_checkpoint
from lightning_dlopt.structure.plan import plan_of
from lightning_dlopt.structure.surgery import Surgery
from tests.quiet import QUIET


class MadeInSetup(LightningModule):
    def setup(self, stage: str | None = None) -> None:
        self.norm = nn.BatchNorm2d(2)
        self.net = nn.Sequential(
            nn.Conv2d(2, 16, 3),
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 16, 3, stride=2),
            nn.Flatten(),
            nn.Linear(144, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self.norm(x))
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class ForLoading(MadeInSetup):
    def __init__(self) -> None:
        super().__init__()
        self.setup()


def techniques() -> list[Surgery]:
    return [
        LowRank(0.5, ["net.4"]),
        SqueezeExcite(min_channels=8),
        BlurPool(min_channels=8),
        WeightStandardization(),
        GhostBatchNorm(2, ["net.1"]),
        GhostBatchNorm(3, ["norm"]),
    ]


def fit(module: LightningModule, *changes: Surgery) -> Trainer:
    trainer = Trainer(callbacks=list(changes), max_epochs=1, **QUIET)
    trainer.fit(module, TensorLoader(torch.randn(4, 2, 9, 9), torch.arange(4) % 3, batch_size=4))
    return trainer


@pytest.mark.parametrize("index", [*range(6), None])
def test_the_new_layers_are_changed_like_the_old(index: int | None, tmp_path: Path) -> None:
    module = MadeInSetup()
    chosen = slice(None) if index is None else slice(index, index + 1)
    fit(module, *techniques()[chosen])
    plan, kinds = plan_of(module), [type(part) for part in module.modules()]
    trainer = fit(module, *techniques()[chosen])
    assert [type(part) for part in module.modules()] == kinds
    assert plan_of(module) == plan
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    x = torch.randn(3, 2, 9, 9)
    loaded = load_from_checkpoint(ForLoading, tmp_path / "a.ckpt")
    torch.testing.assert_close(loaded.eval()(x), module.eval()(x), rtol=0, atol=0)
