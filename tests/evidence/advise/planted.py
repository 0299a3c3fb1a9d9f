"""Data and modules with known faults, for the probes."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_dlopt.evidence.advise.finding import Finding
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.subject import Subject


class Tensors(LightningDataModule):
    """Tensors in memory, a part of them held out."""

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        batch_size: int = 32,
        classes: Sequence[str] = (),
        shuffle: bool = True,
        held_out: int = 0,
    ) -> None:
        super().__init__()
        self.train = TensorDataset(inputs[held_out:], targets[held_out:])
        self.held_out = TensorDataset(inputs[:held_out], targets[:held_out])
        self.batch_size, self.shuffle, self.classes = batch_size, shuffle, tuple(classes)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, self.batch_size, shuffle=self.shuffle)

    def val_dataloader(self) -> Any:
        return DataLoader(self.held_out, 256) if len(self.held_out) else []


class Model(LightningModule):
    """A network, a loss and an optimizer."""

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[..., Tensor] = functional.cross_entropy,
        lr: float = 0.01,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    ) -> None:
        super().__init__()
        self.network, self.loss, self.optimizer = network, loss, partial(optimizer, lr=lr)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = self.loss(self.network(inputs), targets)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters())


class Manual(Model):
    """Steps its optimizer itself."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(self.network(batch[0]), batch[1]))
        optimizer.step()


def network(*sizes: int) -> nn.Sequential:
    """Return linear layers with ReLU between them, from seeded weights; the input is flattened."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Flatten()]
        for width, following in pairwise(sizes):
            layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def blobs(count: int = 640, classes: int = 4, spread: float = 0.7) -> tuple[Tensor, Tensor]:
    """Return points around one center for each class, and their classes."""
    generator = torch.Generator().manual_seed(1)
    centers = torch.randn(classes, 16, generator=generator)
    targets = torch.randint(classes, (count,), generator=generator)
    noise = torch.randn(count, 16, generator=generator)
    return centers[targets] + spread * noise, targets


#: Pixels of an arrow to the right.
_ARROW = ["........", "....#...", "....##..", ".#######", ".#######", "....##..", "....#..."]
_ARROW.append("........")


def arrows(count: int = 640, directions: int = 4) -> tuple[Tensor, Tensor]:
    """Return noisy pictures ``(N, 1, 8, 8)`` of arrows to the right, left, up and down."""
    generator = torch.Generator().manual_seed(2)
    right = torch.tensor([[float(pixel == "#") for pixel in row] for row in _ARROW])
    up = right.T.flip(0)
    pictures = torch.stack([right, right.flip(1), up, up.flip(0)])
    targets = torch.randint(directions, (count,), generator=generator)
    noise = torch.randn(count, 1, 8, 8, generator=generator)
    return pictures[targets][:, None] + 0.3 * noise, targets


DIRECTIONS = ("right", "left", "up", "down")


def run(probe: Probe, subject: Subject) -> list[Finding]:
    """Return a probe's findings, as they come with seeded global generators and no deadline."""
    with subject.isolated():
        return probe.run(subject)
