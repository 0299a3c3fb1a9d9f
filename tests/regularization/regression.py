"""What the tests of the penalties train."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from tests.quiet import QUIET


class Regression(LightningModule):
    """A small regression whose penalty, if it has one, is in the loss by autograd."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0, make: Any = None) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
        with torch.no_grad():
            self.net[0].weight[0] = 0.0  # where the absolute value has no slope
        self.l1, self.l2 = l1, l2
        self.make = make or (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))

    def penalty(self) -> Tensor:
        weights = [p for p in self.parameters() if p.dim() > 1]
        return sum(self.l1 * p.abs().sum() + self.l2 * (p * p).sum() for p in weights)  # type: ignore[return-value]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = functional.mse_loss(self.net(x), y)
        return loss + self.penalty() if self.l1 or self.l2 else loss

    def configure_optimizers(self) -> Any:
        return self.make(self.parameters())


def loader(batch_size: int = 8, samples: int = 32) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(samples, 4, generator=generator)
    y = torch.randn(samples, 2, generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=batch_size)


def fit(
    module: LightningModule,
    callbacks: Sequence[Any] = (),
    *,
    scale: float | None = None,
    batch_size: int = 8,
    **arguments: Any,
) -> Any:
    """Train ``module``; with ``scale``, in 16-bit with that loss scale to start with."""
    if scale is not None:
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        arguments["plugins"] = [MixedPrecision("16-mixed", "cpu", scaler)]
    settings: dict[str, Any] = {**QUIET, "max_epochs": 2, "devices": 1, **arguments}
    trainer = Trainer(callbacks=list(callbacks), **settings)
    trainer.fit(module, loader(batch_size))
    return module


def assert_close(left: nn.Module, right: nn.Module, **tolerance: float) -> None:
    """Two modules have the same weights, to float32 rounding by default."""
    for name, tensor in left.state_dict().items():
        torch.testing.assert_close(tensor, right.state_dict()[name], **tolerance)
