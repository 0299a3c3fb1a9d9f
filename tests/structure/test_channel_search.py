"""Which layers the removed channels come from."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from lightning_dlopt.core import ArgumentError
from lightning_dlopt.data import TensorLoader
from lightning_dlopt.structure import ChannelPruning, ConvNet, prune_channels
from tests.quiet import QUIET


def widths(module: nn.Module) -> list[int]:
    return [part.out_channels for part in module.modules() if isinstance(part, nn.Conv2d)]


@pytest.mark.parametrize(
    ("build", "size"),
    [
        (lambda: ConvNet([1, 64, 128, 256, 256]), (1, 28, 28)),
        (lambda: models.resnet18(num_classes=10), (3, 32, 32)),
    ],
)
def test_each_layer_loses_about_the_same_share(build: Any, size: tuple[int, ...]) -> None:
    module = build()
    before = widths(module)
    prune_channels(module, torch.randn(2, *size), speed_up=4)
    # a quarter of the multiply-adds is half of the inputs times half of the outputs
    shares = [now / then for now, then in zip(widths(module), before, strict=True)]
    assert min(shares) > 0.4
    assert max(shares) < 0.6


def test_layers_may_lose_what_matters_least_for_what_it_saves() -> None:
    """Two layers of the same cost, in one of which half of the channels are nearly nothing."""
    kept = {}
    for scope in ("layer", "global"):
        torch.manual_seed(1)
        module = nn.Sequential(
            *(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 8), nn.ReLU()),
            *(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 8)),
        )
        with torch.no_grad():
            for tensor, dim in ((module[0].weight, 0), (module[0].bias, 0), (module[2].weight, 1)):
                tensor.narrow(dim, 0, 32).mul_(1e-4)
        prune_channels(module, torch.randn(2, 8), speed_up=4 / 3, scope=scope, target=["0", "4"])
        kept[scope] = module[0].out_features, module[4].out_features
    assert kept == {"layer": (48, 48), "global": (32, 64)}


def test_a_scope_that_there_is_not() -> None:
    with pytest.raises(ArgumentError, match=r"scope='all' must be one of 'layer', 'global'"):
        prune_channels(nn.Linear(2, 2), torch.zeros(1, 2), scope="all")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"ChannelPruning: scope='all'"):
        ChannelPruning(scope="all")  # type: ignore[arg-type]


class Twice(LightningModule):
    """Calls one part twice and another one, of the same cost, once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)) for _ in range(2)
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch[0], batch[1]
        logits = self.first(x) + self.first(-x) + self.second(x)
        return functional.cross_entropy(logits, y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_part_counts_as_often_as_it_is_called() -> None:
    module, logger = Twice(), Logged()
    data = TensorLoader(torch.randn(24, 16), torch.randint(4, (24,)), batch_size=8)
    pruning = ChannelPruning(speed_up=1.5, keep=["second.*"])
    trainer = Trainer(callbacks=[pruning], max_epochs=1, **{**QUIET, "logger": logger})
    trainer.fit(module, data)
    # two thirds of three times 64 units are twice 32 and once 64
    assert module.first[0].out_features == 32
    assert logger.seen["multiply_adds_left"] == pytest.approx(2 / 3)


class Logged(DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, float] = {}

    def log_metrics(self, metrics: Any, step: Any = None, *_: Any) -> None:
        self.seen.update(metrics)
