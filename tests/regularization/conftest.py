"""A module as strangers write it, and a hand-written loop to compare with."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from lightning_dlopt.data import TensorLoader
from tests.quiet import QUIET

FEATURES, CLASSES, BATCH = 6, 3, 8

Loss = Callable[[Tensor, Tensor], Tensor]


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return (
        torch.randn(32, FEATURES, generator=generator),
        torch.randint(CLASSES, (32,), generator=generator),
    )


def network(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Linear(FEATURES, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(8, CLASSES),
    )


class Stranger(LightningModule):
    """Written for integer labels, with accuracy, and with a loss that a test can choose."""

    def __init__(self, loss: Loss = functional.cross_entropy, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = network(dropout)
        self.loss = loss
        self.accuracy = MulticlassAccuracy(CLASSES)
        self.losses: list[float] = []
        self.val_losses: list[float] = []
        self.labels: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        logits = self.net(x)
        loss = self.loss(logits, y)
        self.accuracy(logits, y)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        self.log("loss", loss)
        self.labels.append(y)
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.val_losses.append(self.loss(self.net(x), y).item())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


def loader() -> TensorLoader:
    return TensorLoader(*data(), batch_size=BATCH)


def fit(module: LightningModule, techniques: Sequence[Callback] = (), **arguments: Any) -> Trainer:
    torch.manual_seed(9)
    settings = {**QUIET, "max_epochs": 2, "devices": 1, **arguments}
    trainer = Trainer(callbacks=list(techniques), **settings)
    trainer.fit(module, loader(), loader())
    return trainer


def assert_equal_weights(left: nn.Module, right: nn.Module) -> None:
    expected = right.state_dict()
    for name, tensor in left.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def assert_close_weights(left: nn.Module, right: nn.Module) -> None:
    expected = right.state_dict()
    for name, tensor in left.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
