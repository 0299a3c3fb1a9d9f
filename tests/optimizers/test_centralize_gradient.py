"""CentralizeGradient against a loop by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn import functional

from lightning_dlopt.core import ArgumentError, NoEffectWarning, TechniqueError
from lightning_dlopt.data import TensorLoader
from lightning_dlopt.optimizers import CentralizeGradient, centralize_gradient_
from tests.contract.processes import call_on_ranks
from tests.quiet import QUIET

X = torch.randn(12, 2, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3


class Module(LightningModule):
    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.net = nn.Sequential(
                nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 3)
            )
        self.fused = fused

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(self.net(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(*batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, fused=self.fused)


def fit(module: LightningModule, *callbacks: Callback, **arguments: Any) -> None:
    settings = {**QUIET, "devices": 1, "max_epochs": 2, **arguments}
    trainer = Trainer(callbacks=list(callbacks), **settings)
    trainer.fit(module, TensorLoader(X, Y, batch_size=4))


def by_hand(dimensions: tuple[int, ...] = (2, 4), clip: float | None = None) -> Module:
    """Train with the formula of the paper's equation 1 for tensors of these dimensions."""
    module = Module()
    optimizer = module.configure_optimizers()
    for step in range(6):
        batch = slice(4 * (step % 3), 4 * (step % 3) + 4)
        optimizer.zero_grad()
        module.loss(X[batch], Y[batch]).backward()
        for parameter in module.parameters():
            if parameter.dim() in dimensions:
                for row in parameter.grad:  # type: ignore[union-attr]
                    row -= row.sum() / row.numel()
        if clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
    return module


def assert_same(left: nn.Module, right: nn.Module, **tolerance: Any) -> None:
    for one, other in zip(left.parameters(), right.parameters(), strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def test_it_trains_as_a_loop_by_hand() -> None:
    module = Module()
    fit(module, CentralizeGradient())
    assert_same(module, by_hand())
    with pytest.raises(AssertionError):
        assert_same(module, by_hand(dimensions=()))


@pytest.mark.parametrize(
    ("technique", "dimensions"),
    [
        (CentralizeGradient(conv_only=True), (4,)),
        (CentralizeGradient(["net.3.*"]), (2,)),
        (CentralizeGradient("all"), (2, 4)),
    ],
)
def test_which_parameters(technique: CentralizeGradient, dimensions: tuple[int, ...]) -> None:
    module = Module()
    fit(module, technique)
    assert_same(module, by_hand(dimensions))


def test_the_sum_of_each_unit_stays() -> None:
    # what the paper derives in its section 4.1
    module = Module()
    before = module.net[0].weight.detach().sum(dim=(1, 2, 3))
    fit(module, CentralizeGradient())
    torch.testing.assert_close(module.net[0].weight.detach().sum(dim=(1, 2, 3)), before)


def test_it_comes_before_clipping() -> None:
    module = Module()
    fit(module, CentralizeGradient(), gradient_clip_val=0.1)
    assert_same(module, by_hand(clip=0.1))


class Penalty(Callback):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for parameter in pl_module.parameters():
            parameter.grad.add_(1.0)


def test_a_penalty_is_centralized_in_either_order() -> None:
    # a constant that is added to every gradient goes away again, except where it isn't a weight
    left, right = Module(), Module()
    fit(left, CentralizeGradient(), Penalty())
    fit(right, Penalty(), CentralizeGradient())
    assert_same(left, right, rtol=0, atol=0)


class SeesGradients(Module):
    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        means = self.net[3].weight.grad.mean(dim=1)
        torch.testing.assert_close(means, torch.zeros_like(means), atol=1e-6, rtol=0)
        self.norm = float(self.net[3].weight.grad.norm())


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_unscaled(fused: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    module, plain = SeesGradients(fused), SeesGradients()
    plugins = [MixedPrecision("16-mixed", "cpu", scaler)]
    fit(module, CentralizeGradient(), plugins=plugins, max_steps=1)
    fit(plain, CentralizeGradient(), max_steps=1)
    assert module.norm == pytest.approx(plain.norm, rel=0.02)


# ---- what it refuses, and where it has no effect ----


class SparseModule(Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Embedding(3, 3, sparse=True))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(self.net(y), y)


def test_sparse_gradients() -> None:
    with pytest.raises(TechniqueError, match=r"CentralizeGradient\(\): a sparse gradient"):
        fit(SparseModule(), CentralizeGradient())


def test_a_pattern_that_matches_nothing() -> None:
    with pytest.raises(TechniqueError, match=r"CentralizeGradient.*'body\.\*'"):
        fit(Module(), CentralizeGradient(["body.*"]))


def test_no_effect() -> None:
    with pytest.warns(NoEffectWarning, match="3 or more dimensions"):
        fit(Module(), CentralizeGradient(["net.3.weight"], conv_only=True))


# ---- the function ----


def test_the_function() -> None:
    shapes = [(), (3,), (3, 4), (3, 4, 5), (2, 3, 2, 2), (0, 4), (4, 0)]
    gradients = [torch.randn(shape) for shape in shapes]
    before = [gradient.clone() for gradient in gradients]
    centralize_gradient_(gradients)
    for gradient, old in zip(gradients[:2], before[:2], strict=True):
        assert torch.equal(gradient, old)
    for gradient, old in zip(gradients[2:5], before[2:5], strict=True):
        means = torch.stack([row.sum() / row.numel() for row in old])
        expected = torch.stack([row - mean for row, mean in zip(old, means, strict=True)])
        torch.testing.assert_close(gradient, expected)


def test_a_strided_gradient_is_changed_in_place() -> None:
    gradient = torch.randn(4, 3).T
    centralize_gradient_([gradient])
    torch.testing.assert_close(gradient.sum(1), torch.zeros(3))


def split(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    full = torch.arange(12.0).view(4, 3).square()
    for placement in (Shard(0), Replicate()):
        gradient = distribute_tensor(full, mesh, [placement])
        centralize_gradient_([gradient])
        torch.testing.assert_close(gradient.full_tensor(), full - full.mean(1, keepdim=True))
    with pytest.raises(ArgumentError, match="only its first dimension"):
        centralize_gradient_([distribute_tensor(full, mesh, [Shard(1)])])
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_gradients_that_are_split_among_ranks(tmp_path: Path) -> None:
    call_on_ranks(split, tmp_path, folder=tmp_path)


def test_a_unit_of_one_number_keeps_its_gradient() -> None:
    gradients = [torch.ones(3, 1), torch.ones(3, 1, 1), torch.tensor([[1.0, 3.0]])]
    centralize_gradient_(gradients)
    assert gradients[0].eq(1).all()
    assert gradients[1].eq(1).all()
    assert gradients[2].tolist() == [[-1.0, 1.0]]
