"""Small modules and data with a fault in them, or none."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

Batch = tuple[Tensor, Tensor]


class Clock:
    """A clock that goes only when it is told to; copies are the clock itself."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def __deepcopy__(self, memo: dict[int, Any]) -> "Clock":
        return self


class Blobs(LightningDataModule):
    """Classes around centers.

    Args:
        samples: for training.
        features: of each sample.
        signal: distance of the centers in units of the noise.
        outliers: how many times larger one sample in fifty is.
        same: whether all inputs are equal, so that labels don't belong to them.
    """

    def __init__(
        self,
        samples: int = 2000,
        features: int = 16,
        signal: float = 2.0,
        outliers: float = 1.0,
        same: bool = False,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        centers = signal * torch.randn(4, features, generator=generator)
        count = samples + 400
        targets = torch.randint(4, (count,), generator=generator)
        inputs = centers[targets] + torch.randn(count, features, generator=generator)
        inputs[::50] *= outliers
        self.inputs = torch.ones_like(inputs) if same else inputs
        self.targets = targets

    def train_dataloader(self) -> Any:
        """Return the loader of all but the last 400."""
        data = TensorDataset(self.inputs[:-400], self.targets[:-400])
        return DataLoader(data, batch_size=20, shuffle=True)

    def val_dataloader(self) -> Any:
        """Return the loader of the last 400."""
        data = TensorDataset(self.inputs[-400:], self.targets[-400:])
        return DataLoader(data, batch_size=100)


class Sleepy(Blobs):
    """Takes its time for every batch, by a clock."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def train_dataloader(self) -> Any:
        """Return a loader that sleeps."""
        return _SleepyLoader(super().train_dataloader(), self.clock, self.seconds)


class _SleepyLoader:
    def __init__(self, loader: Any, clock: Clock, seconds: float) -> None:
        self.loader, self.clock, self.seconds = loader, clock, seconds

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            self.clock.time += self.seconds
            yield batch


class Net(LightningModule):
    """A perceptron of other people's kind: its rate stands in its code.

    Args:
        features: of the input.
        width: of the hidden layer.
        rate: of Adam.
        fault: ``"frozen"`` (nothing is trained but a bias that changes nothing), ``"broken"`` (the
            loss doesn't depend on the output), or none.
        clock: goes on by a hundredth of a second at each step.
    """

    def __init__(
        self,
        features: int = 16,
        width: int = 32,
        rate: float = 0.003,
        fault: str = "",
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        self.rate, self.fault, self.clock = rate, fault, clock
        self.network = nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Dropout(0.05), nn.Linear(width, 4)
        )
        self.idle = nn.Parameter(torch.zeros(1))
        if fault == "frozen":
            self.network.requires_grad_(False)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss."""
        inputs, targets = batch
        if self.clock is not None:
            self.clock.time += 0.01
        logits = self.network(inputs)
        if self.fault == "broken":
            logits = logits.detach()
        loss = functional.cross_entropy(logits, targets) + 0 * self.idle.sum()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracy."""
        inputs, targets = batch
        logits = self.network(inputs)
        self.log("val_loss", functional.cross_entropy(logits, targets))
        self.log("val_acc", (logits.argmax(1) == targets).float().mean())

    def configure_optimizers(self) -> Any:
        """Return Adam with a schedule."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=1000)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Exploding(Net):
    """Goes through the same wide layer many times, which makes gradients explode."""

    def __init__(self) -> None:
        super().__init__(width=32)
        self.again = nn.Linear(32, 32)
        nn.init.normal_(self.again.weight, std=2.0)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss."""
        inputs, targets = batch
        hidden = self.network[0](inputs)
        for _ in range(60):
            hidden = self.again(hidden).relu()
        return functional.cross_entropy(self.network[3](hidden), targets)
