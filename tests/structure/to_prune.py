"""What the tests of MagnitudePruning train."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import TensorLoader
from tests.quiet import QUIET

BATCHES, EPOCHS = 10, 4
STEPS = BATCHES * EPOCHS
OPTIMIZERS: dict[str, Any] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
}


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8 * BATCHES, 6, generator=generator)
    return x, x @ torch.randn(6, 3, generator=generator)


class Module(LightningModule):
    optimizer = "adamw"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return functional.mse_loss(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return OPTIMIZERS[self.optimizer](self.parameters())


def fit(
    module: LightningModule, *callbacks: Callback, resume: Path | None = None, **settings: Any
) -> Trainer:
    saving = any(isinstance(callback, Checkpoint) for callback in callbacks)
    defaults = {**QUIET, "enable_checkpointing": saving, "max_epochs": EPOCHS, "devices": 1}
    trainer = Trainer(**{**defaults, **settings}, callbacks=list(callbacks))
    trainer.fit(module, TensorLoader(*data(), batch_size=8), ckpt_path=resume)
    return trainer


def weights(module: Any) -> list[Tensor]:
    return [module.net[0].weight, module.net[2].weight]


def zero_share(module: Any) -> float:
    found = weights(module)
    return sum(int((w == 0).sum()) for w in found) / sum(w.numel() for w in found)


class Shares(Callback):
    """Notes the share of zeros after every batch; goes last."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.seen.append(zero_share(pl_module))


class StopAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.step
