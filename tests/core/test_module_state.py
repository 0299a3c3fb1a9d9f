import random
from collections import deque
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from lightning_dlopt.core.global_generators import GlobalGenerators
from lightning_dlopt.core.module_state import ModuleState


class Busy(LightningModule):
    """Changes itself in every way at every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.metrics = MetricCollection(
            [MulticlassAccuracy(3), MulticlassConfusionMatrix(3)], compute_groups=True
        )
        self.calls = 0
        self.seen: list[int] = []
        self.recent: deque[int] = deque(maxlen=2)
        self.by_name = {"passes": 0}
        self.total = torch.zeros(())
        self.register_buffer("replaced", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen.append(self.calls)
        self.recent.append(self.calls)
        self.by_name["passes"] += 1
        self.total += x.detach().sum()
        self.replaced = self.replaced + 1
        self.last = self.norm(x)
        self.metrics.update(self.last.detach(), torch.zeros(len(x), dtype=torch.long))
        return self.last


def observed(module: Busy) -> list[Any]:
    plain = [module.calls, module.seen, list(module.recent), module.by_name]
    tensors = [module.total, module.replaced, *module.norm.buffers()]
    confusion = module.metrics["MulticlassConfusionMatrix"].confmat
    return [*map(str, plain), *(t.tolist() for t in tensors), confusion.tolist()]


def test_everything_a_pass_changes_is_put_back() -> None:
    module, x = Busy(), torch.randn(4, 3)
    module(x)
    before, last = observed(module), module.last
    state = ModuleState(module)
    module(x + 1)
    module.new = 3
    assert all(now != then for now, then in zip(observed(module), before, strict=True))
    state.restore_attributes()
    state.restore_contents()
    assert observed(module) == before
    assert module.last is last
    assert not hasattr(module, "new")
    module(x)
    fresh = Busy()
    fresh(x)
    fresh(x)
    assert observed(module) == observed(fresh)
    assert str(module.metrics.compute()) == str(fresh.metrics.compute())


def test_contents_that_cannot_change_are_left_alone() -> None:
    module = nn.Module()
    with torch.inference_mode():
        module.register_buffer("fixed", torch.ones(2))
    module.result = torch.ones(2, requires_grad=True) * 2
    state = ModuleState(module)
    state.restore_attributes()
    state.restore_contents()
    assert module.result.grad_fn is not None


def test_a_scripted_module_keeps_its_statistics() -> None:
    module = torch.jit.script(nn.BatchNorm1d(2))
    state = ModuleState(nn.Sequential(module))
    module(torch.randn(4, 2))
    state.restore_contents()
    assert module.running_mean.tolist() == [0, 0]


def test_every_global_generator_is_put_back() -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), random.random(), np.random.rand()  # noqa: NPY002

    before = GlobalGenerators(torch.device("cpu"))
    first = draw()
    before.restore()
    assert draw() == first
