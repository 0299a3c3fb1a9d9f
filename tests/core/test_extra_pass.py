import random
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.demos.boring_classes import RandomDataset
from torch import nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassPrecision

from lightning_dlopt.core.extra_pass import extra_pass
from tests.quiet import QUIET


def all_generators() -> Any:
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
    )


class Part(LightningModule):
    """A part that logs by itself."""

    calls = 0

    def log(self, *args: Any, **kwargs: Any) -> None:
        Part.calls += 1


class Watched(LightningModule):
    """Passes twice, and looks whether the second pass is seen."""

    def __init__(self, extra: bool) -> None:
        super().__init__()
        self.extra = extra
        self.net = nn.Sequential(nn.Linear(32, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
        self.shared = self.net[1]
        self.mean = MeanMetric()
        # the two share their states as soon as they are found to be equal
        self.metrics = MetricCollection(
            {"accuracy": MulticlassAccuracy(3), "precision": MulticlassPrecision(3)}
        )
        self.part = Part()

    def once(self, batch: Any) -> Any:
        logits = self.net(batch)
        target = torch.randint(3, (len(batch),))
        loss = nn.functional.cross_entropy(logits, target)
        random.random()
        np.random.rand()  # noqa: NPY002
        self.mean(loss.detach())
        self.part.log("part", loss)
        self.metrics.update(logits, target)
        self.log("loss", loss, on_epoch=True)
        self.log_dict({"mean": self.mean}, on_epoch=True)
        self.log_dict(self.metrics, on_epoch=True)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.once(batch)
        if self.extra:
            before = all_generators(), {k: v.clone() for k, v in self.state_dict().items()}
            buffers = dict(self.named_buffers())
            with extra_pass(self, seed=5):
                again = self.once(batch)
                assert self.net[1] is self.shared
            assert all_generators() == before[0]
            assert all(torch.equal(v, before[1][k]) for k, v in self.state_dict().items())
            assert all(buffers[name] is buffer for name, buffer in self.named_buffers())
            assert not torch.equal(again, loss)
            (again * 0).backward()  # possible, and leaves the result alone
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(extra: bool) -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    module = Watched(extra)
    loader = torch.utils.data.DataLoader(RandomDataset(32, 12), batch_size=4)
    trainer = Trainer(**QUIET, max_epochs=2, devices=1)
    trainer.fit(module, loader)
    return module.state_dict(), {k: float(v) for k, v in trainer.logged_metrics.items()}, module


def test_only_the_first_pass_counts() -> None:
    Part.calls = 0
    weights, logged, module = run(extra=True)
    assert Part.calls == 6
    expected_weights, expected_logged, _ = run(extra=False)
    assert logged == expected_logged
    assert {"accuracy_epoch", "precision_epoch", "mean_epoch", "loss_epoch"} <= set(logged)
    assert all(torch.equal(weights[name], expected_weights[name]) for name in weights)
    assert "log" not in vars(module)


def test_an_exception_leaves_no_trace() -> None:
    module = Watched(extra=False)
    before, state = set(vars(module)), all_generators()

    def fail() -> None:
        with extra_pass(module):
            module.net[1].running_mean += 1
            torch.rand(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert set(vars(module)) == before
    assert all_generators() == state
    assert not module.net[1].running_mean.any()


def test_without_a_seed_the_generators_go_on() -> None:
    module = Watched(extra=False)
    torch.manual_seed(1)
    with extra_pass(module):
        first = torch.rand(1)
    assert torch.equal(torch.rand(1), first)
