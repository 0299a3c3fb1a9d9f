"""A module whose loss is given, trained by hand and with a mixing technique."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from tests.quiet import QUIET

CLASSES = 5

#: From logits and target to what the training step returns.
Loss = Callable[[Tensor, Tensor], Any]


class Module(LightningModule):
    """Keeps what its training step got and the losses that it returned."""

    def __init__(self, loss: Loss = functional.cross_entropy, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.LazyLinear(CLASSES))
        self.loss = loss
        self.seen: list[Any] = []
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen.append(batch)
        x, y = batch
        return self.loss(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Losses(Callback):
    """Notes the loss that goes into the backward pass."""

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        pl_module.losses.append(float(loss.detach()))


def train(
    techniques: Sequence[Callback], batches: Sequence[Any], module: Any = None, **arguments: Any
) -> Any:
    """Fit a module on the given batches, one each step, at a rate of 0."""
    seed_everything(1, verbose=False)
    module = Module() if module is None else module
    if isinstance(module, Module):
        with torch.no_grad():
            module.net(batches[0][0].float())
    loader = DataLoader(list(batches), batch_size=None)
    settings = {**QUIET, "max_epochs": 1, "callbacks": [*techniques, Losses()], **arguments}
    Trainer(**settings).fit(module, loader)
    return module


def train_once(technique: Callback, batch: Any) -> Module:
    """Fit on one batch, whose loss doesn't matter."""
    module = Module(lambda logits, _: logits.sum())
    return train([technique], [batch], module)  # type: ignore[no-any-return]


def batches(count: int = 3, size: int = 6) -> list[Any]:
    generator = torch.Generator().manual_seed(2)
    return [
        (
            torch.randn(size, 4, generator=generator),
            torch.randint(CLASSES, (size,), generator=generator),
        )
        for _ in range(count)
    ]
