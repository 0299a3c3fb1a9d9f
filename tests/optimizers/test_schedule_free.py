"""ScheduleFree against loops that switch by hand."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_optimizer
import schedulefree
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from lightning_dlopt.core import CheckpointError, ConflictError, TechniqueError
from lightning_dlopt.data import TensorLoader
from lightning_dlopt.optimizers import (
    CentralizeGradient,
    ScheduleFree,
    UseOptimizer,
    evaluation_weights,
)
from lightning_dlopt.schedules import ConstantLR, CosineLR
from tests.quiet import QUIET

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)

OPTIMIZERS = {
    "SGD": lambda p: schedulefree.SGDScheduleFree(p, lr=0.3),
    "AdamW": lambda p: schedulefree.AdamWScheduleFree(p, lr=0.1, weight_decay=0.1),
    "RAdam": lambda p: schedulefree.RAdamScheduleFree(p, lr=0.1),
    "their SGD": lambda p: pytorch_optimizer.ScheduleFreeSGD(p, lr=0.3),
    "their AdamW": lambda p: pytorch_optimizer.ScheduleFreeAdamW(p, lr=0.1),
    "their RAdam": lambda p: pytorch_optimizer.ScheduleFreeRAdam(p, lr=0.1),
}


class Module(LightningModule):
    """Writes down the weights that training, validation and the rest see."""

    def __init__(self, kind: str = "SGD") -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
        self.kind = kind
        self.validated: list[Tensor] = []

    def weights(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters()])

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.net(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(*batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(self.weights())
        self.log("val_loss", self.loss(*batch))

    def configure_optimizers(self) -> Any:
        return OPTIMIZERS[self.kind](self.parameters())


def loader(batch_size: int = 4) -> TensorLoader:
    return TensorLoader(X, Y, batch_size=batch_size)


def fit(module: Any, *callbacks: Callback, resume: Path | None = None, **arguments: Any) -> Trainer:
    settings = {**QUIET, "devices": 1, "max_epochs": 3, "num_sanity_val_steps": 0, **arguments}
    trainer = Trainer(callbacks=list(callbacks), **settings)
    trainer.fit(module, loader(), loader(16), ckpt_path=resume)
    return trainer


def by_hand(module: Module, epochs: int = 3, switch: bool = False) -> None:
    """Train by hand; ``switch`` between epochs as the optimizers' documentation says."""
    optimizer = module.configure_optimizers()
    for epoch in range(epochs):
        if switch or epoch == 0:
            optimizer.train()
        for x, y in loader():
            optimizer.zero_grad()
            module.loss(x, y).backward()
            optimizer.step()
        if switch or epoch == epochs - 1:
            optimizer.eval()
        module.validated.append(module.weights())


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_it_trains_as_a_loop_that_switches_by_hand(kind: str) -> None:
    module, twin = Module(kind), Module(kind)
    fit(module, ScheduleFree())
    by_hand(twin, switch=True)
    assert len(module.validated) == 3
    for left, right in zip(module.validated, twin.validated, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_validation_and_saving_leave_training_as_it_was(kind: str, tmp_path: Path) -> None:
    module, twin = Module(kind), Module(kind)
    fit(module, ScheduleFree(), Saves(tmp_path / "x.ckpt", 5), val_check_interval=1)
    by_hand(twin)
    assert len(module.validated) == 12
    assert torch.equal(module.weights(), twin.weights())


def test_without_it_the_optimizer_refuses() -> None:
    with pytest.raises(Exception, match="not in train mode"):
        fit(Module())


@pytest.mark.parametrize("kind", ["AdamW", "their AdamW"])
def test_without_it_the_optimizer_is_not_put_in_another_ones_place(kind: str) -> None:
    module = Module()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.1)  # type: ignore[method-assign]
    technique = UseOptimizer(OPTIMIZERS[kind])
    before = module.weights()
    with pytest.raises(TechniqueError, match=r"(?s)UseOptimizer.*add ScheduleFree\(\)"):
        fit(module, technique)
    assert torch.equal(module.weights(), before)
    fit(module, technique, ScheduleFree())


def test_the_sanity_check_sees_the_initial_weights() -> None:
    module = Module("their SGD")  # begins in training mode by its own account
    initial = module.weights()
    fit(module, ScheduleFree(), num_sanity_val_steps=1, max_epochs=1)
    assert torch.equal(module.validated[0], initial)


class Saves(Callback):
    """Saves after a batch, in the middle of training."""

    def __init__(self, path: Path, batch: int, weights_only: bool = False) -> None:
        self.path, self.batch, self.weights_only = path, batch, weights_only

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            before = pl_module.weights()
            trainer.save_checkpoint(self.path, weights_only=self.weights_only)
            assert torch.equal(pl_module.weights(), before), "saving moved the weights"


class SavesAtTheEnd(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("weights_only", [False, True])
def test_a_checkpoint_has_the_evaluation_weights(tmp_path: Path, weights_only: bool) -> None:
    path = tmp_path / "x.ckpt"
    fit(Module(), ScheduleFree(), Saves(path, 3, weights_only))
    twin = Module()
    by_hand(twin, epochs=1)
    loaded = Module.load_from_checkpoint(path)
    assert torch.equal(loaded.weights(), twin.weights())
    state = torch.load(path, weights_only=True)
    assert ("callbacks" in state) == (not weights_only)


def test_the_best_checkpoint_is_what_was_validated(tmp_path: Path) -> None:
    module = Module()
    saver = ModelCheckpoint(tmp_path, "{epoch}", monitor="val_loss", save_top_k=-1)
    fit(module, ScheduleFree(), saver, enable_checkpointing=True)
    for epoch, seen in enumerate(module.validated):
        loaded = Module.load_from_checkpoint(tmp_path / f"epoch={epoch}.ckpt")
        assert torch.equal(loaded.weights(), seen)


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    whole, module = Module("AdamW"), Module("AdamW")
    fit(Module("AdamW"), ScheduleFree(), SavesAtTheEnd(tmp_path / "x.ckpt"), max_epochs=2)
    fit(whole, ScheduleFree())
    trainer = fit(module, ScheduleFree(), resume=tmp_path / "x.ckpt")
    assert trainer.global_step == 12
    assert torch.equal(whole.weights(), module.weights())


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("batch", [3, 5, 6])
def test_resume_is_exact(tmp_path: Path, kind: str, batch: int) -> None:
    path, whole, module = tmp_path / "x.ckpt", Module(kind), Module(kind)
    fit(whole, ScheduleFree(), Saves(path, batch))
    trainer = fit(module, ScheduleFree(), resume=path)
    assert trainer.global_step == 12
    assert torch.equal(whole.weights(), module.weights())


@pytest.mark.parametrize("kind", ["SGD", "their AdamW"])
def test_resume_after_validation_is_exact(tmp_path: Path, kind: str) -> None:
    whole, module = Module(kind), Module(kind)
    saver = ModelCheckpoint(tmp_path, "{epoch}", monitor="val_loss", save_top_k=-1)
    fit(whole, ScheduleFree(), saver, enable_checkpointing=True)
    fit(module, ScheduleFree(), resume=tmp_path / "epoch=1.ckpt")
    assert torch.equal(whole.weights(), module.weights())


def test_without_it_a_resume_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    fit(Module(), ScheduleFree(), Saves(path, 3))
    with pytest.raises(CheckpointError, match=r"ScheduleFree\(\)"):
        fit(Module(), CentralizeGradient(), resume=path)


def test_after_an_exception_the_module_has_the_evaluation_weights() -> None:
    class Crashes(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if self.trainer.global_step == 4:
                raise ZeroDivisionError
            return super().training_step(batch, batch_idx)

    module, twin = Crashes(), Module()
    with pytest.raises(ZeroDivisionError):
        fit(module, ScheduleFree(), limit_val_batches=0)
    by_hand(twin, epochs=1)
    assert torch.equal(module.weights(), twin.weights())


def test_a_shared_weight_is_saved_under_both_names(tmp_path: Path) -> None:
    class Tied(Module):
        def __init__(self) -> None:
            super().__init__()
            self.again = self.net[0]

    path = tmp_path / "x.ckpt"
    fit(Tied(), ScheduleFree(), Saves(path, 5))
    state = torch.load(path, weights_only=True)["state_dict"]
    assert torch.equal(state["again.weight"], state["net.0.weight"])


def test_mixed_precision_with_a_scaler() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    module, twin = Module(), Module()
    fit(module, ScheduleFree(), plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    by_hand(twin)
    torch.testing.assert_close(module.weights(), twin.weights(), rtol=0.02, atol=0.005)


# ---- what it refuses ----


class PlainOptimizer(Module):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_other_optimizers() -> None:
    with pytest.raises(TechniqueError, match=r"PlainOptimizer trains with SGD.*pip install"):
        fit(PlainOptimizer(), ScheduleFree())


def test_a_schedule_is_a_conflict_and_a_warm_up_is_not() -> None:
    for pair in ([ScheduleFree(), CosineLR()], [CosineLR(), ScheduleFree()]):
        with pytest.raises(ConflictError, match=r"ScheduleFree\(\) and CosineLR\(\)"):
            fit(Module(), *pair)
    fit(Module(), ScheduleFree(), ConstantLR(warmup=3))


@pytest.mark.parametrize(
    "averaging", [EMAWeightAveraging(), StochasticWeightAveraging(swa_lrs=0.1)], ids=["ema", "swa"]
)
def test_other_averages_are_a_conflict(averaging: Callback) -> None:
    with pytest.raises(ConflictError, match=type(averaging).__name__):
        fit(Module(), ScheduleFree(), averaging)


# ---- the function ----


def test_the_function_gives_back_the_training_weights_exactly() -> None:
    module = Module("AdamW")
    optimizer: Any = module.configure_optimizers()
    optimizer.train()
    for _ in range(3):
        module.loss(X, Y).backward()
        optimizer.step()
    training = module.weights()
    with evaluation_weights([optimizer]):
        inside = module.weights()
    assert torch.equal(module.weights(), training)
    optimizer.eval()
    assert torch.equal(module.weights(), inside)
    assert not torch.equal(inside, training)
