"""What the tests of SAM train, and SAM as a loop written by hand."""

import random
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from tests.quiet import QUIET

RHO = 0.3


class Module(LightningModule):
    """Dropout, a batch norm, a counter, a metric, a frozen and an unused parameter."""

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Dropout(0.3), nn.Linear(7, 1)
        )
        self.net[1].bias.requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(2))
        self.mean = MeanMetric()
        self.calls = 0
        self.fused = fused

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        self.calls += 1
        return functional.mse_loss(self.net(x), y * random.uniform(0.9, 1.1))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.mean.update(loss.detach())
        self.log("loss", loss, on_step=True, on_epoch=True)
        return {"loss": loss, "calls": self.calls, "value": loss.item()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, fused=self.fused)


def batches(number: int = 6) -> list[Any]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(8, 5, generator=generator), torch.randn(8, 1, generator=generator))
        for _ in range(number)
    ]


def fit(
    module: LightningModule, *callbacks: Any, number: int = 6, epochs: int = 1, **settings: Any
) -> Trainer:
    trainer = Trainer(
        **{**QUIET, **settings}, callbacks=list(callbacks), max_epochs=epochs, devices=1
    )
    random.seed(1)
    torch.manual_seed(1)
    trainer.fit(module, DataLoader(TensorDataset(*map(torch.cat, zip(*batches(number)))), 8))  # noqa: B905
    return trainer


def by_hand(
    module: Module, *, adaptive: bool = False, every: int = 1, accumulate: int = 1, number: int = 6
) -> list[float]:
    """Train with SAM as the paper writes it; return the losses of the first passes."""
    optimizer, losses = module.configure_optimizers(), []
    trained = [p for p in module.net.parameters() if p.requires_grad]
    random.seed(1)
    torch.manual_seed(1)
    DataLoader([0]).__iter__()  # a loader draws a seed for its workers
    for index, batch in enumerate(batches(number)):
        draws = torch.get_rng_state(), random.getstate()
        loss = module.loss(batch)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss / accumulate, trained)
        saved = [p.detach().clone() for p in trained]
        if (index // accumulate) % every == 0:
            scaled = [g * p.abs() if adaptive else g for g, p in zip(gradients, saved, strict=True)]
            norm = sum(g.square().sum() for g in scaled).sqrt()
            with torch.no_grad():
                for p, g in zip(trained, gradients, strict=True):
                    p += RHO * (p.square() * g if adaptive else g) / norm
            statistics = {k: v.clone() for k, v in module.state_dict().items() if "running" in k}
            torch.set_rng_state(draws[0])
            random.setstate(draws[1])
            gradients = torch.autograd.grad(module.loss(batch) / accumulate, trained)
            module.load_state_dict(statistics, strict=False)
            module.net[1].num_batches_tracked -= 1
        for p, before, g in zip(trained, saved, gradients, strict=True):
            p.data.copy_(before)
            p.grad = g if p.grad is None else p.grad + g
        if (index + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
    return losses


def assert_same(one: Module, other: Module, **tolerance: float) -> None:
    for name, value in one.net.state_dict().items():
        torch.testing.assert_close(value, other.net.state_dict()[name], msg=name, **tolerance)
