"""FullBatch against gradients of the whole set taken in one piece."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_dlopt.core import CheckpointError, ConflictError, NoEffectWarning, TechniqueError
from lightning_dlopt.data import TensorLoader
from lightning_dlopt.optimizers import FullBatch, full_batch_gradient
from lightning_dlopt.schedules import LinearLR
from tests.contract.processes import call_on_ranks
from tests.contract.run import whole
from tests.quiet import QUIET

SAMPLES, RATE = 23, 0.3
X = torch.randn(SAMPLES, 4, generator=torch.Generator().manual_seed(0))
Y = X.square().sum(1, keepdim=True).sin()


class Regression(LightningModule):
    """Least squares; leaves out the batches in ``skips``."""

    def __init__(self, skips: tuple[int, ...] = (), optimizer: Any = torch.optim.SGD) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
        self.skips = skips
        self.optimizer = optimizer

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.net(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx in self.skips else self.loss(*batch)

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters(), lr=RATE)


class Summed(Regression):
    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.net(x) - y).square().sum() / 100


class Endless(IterableDataset[Any]):
    """Has an end, but no length."""

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(X, Y, strict=True))


def loader(batch_size: int, **arguments: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), batch_size, **arguments)


def by_hand(module: Regression, steps: int, x: Tensor = X, y: Tensor = Y) -> list[Tensor]:
    """Train by gradients of the whole set in one batch; return the weights."""
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        module.loss(x, y).backward()
        optimizer.step()
    return [parameter.detach() for parameter in module.parameters()]


def fit(module: Regression, data: Any, *callbacks: Callback, **arguments: Any) -> Trainer:
    settings = {**QUIET, "devices": 1, "max_epochs": 3, **arguments}
    trainer = Trainer(callbacks=list(callbacks), **settings)
    trainer.fit(module, data, ckpt_path=None)
    return trainer


def assert_weights(module: Regression, expected: list[Tensor], **tolerance: float) -> None:
    for got, want in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(got.detach(), want, **tolerance)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 7, 10, 22])
@pytest.mark.parametrize("shuffle", [False, True])
def test_it_is_gradient_descent_for_any_batch_size(batch_size: int, shuffle: bool) -> None:
    module = Regression()
    trainer = fit(module, loader(batch_size, shuffle=shuffle), FullBatch())
    assert trainer.global_step == 3
    assert_weights(module, by_hand(Regression(), 3))


def test_plain_accumulation_is_not() -> None:
    # why the batches must be weighted: the last one has 2 samples of 7
    module = Regression()
    fit(module, loader(7), accumulate_grad_batches=4)
    with pytest.raises(AssertionError):
        assert_weights(module, by_hand(Regression(), 3))


def test_a_summed_loss() -> None:
    module = Summed()
    fit(module, loader(7), FullBatch(reduction="sum"))
    assert_weights(module, by_hand(Summed(), 3))


def test_a_loader_without_length() -> None:
    module = Regression()
    trainer = fit(module, DataLoader(Endless(), 7), FullBatch())
    assert trainer.global_step == 3
    assert_weights(module, by_hand(Regression(), 3))


def test_limited_batches() -> None:
    module = Regression()
    fit(module, loader(7), FullBatch(), limit_train_batches=2)
    assert_weights(module, by_hand(Regression(), 3, X[:14], Y[:14]))


def test_max_steps_are_passes() -> None:
    module = Regression()
    trainer = fit(module, loader(7), FullBatch(), max_epochs=-1, max_steps=2)
    assert trainer.global_step == trainer.current_epoch == 2
    assert_weights(module, by_hand(Regression(), 2))


def scaled(precision: bool) -> list[Any]:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    return [MixedPrecision("16-mixed", "cpu", scaler)] if precision else []


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("skips", [(), (1,), (3,), (0, 3)])  # batch 3 is the last one
def test_batches_that_are_left_out_do_not_count(
    skips: tuple[int, ...], fused: bool, half: bool
) -> None:
    def optimizer(parameters: Any, lr: float) -> Any:
        return torch.optim.SGD(parameters, lr=lr, fused=fused)

    module = Regression(skips, optimizer)
    trainer = fit(module, loader(7), FullBatch(), plugins=scaled(half))
    assert trainer.global_step == 3
    kept = [i for i in range(SAMPLES) if i // 7 not in skips]
    tolerance = {"rtol": 0.02, "atol": 3e-3} if half else {}
    assert_weights(module, by_hand(Regression(), 3, X[kept], Y[kept]), **tolerance)


class Watch(Callback):
    """Looks at the gradient wherever other techniques do."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, Tensor]] = []

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_last_batch:
            self.seen.append((trainer.global_step, pl_module.net[0].weight.grad.clone()))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.seen.append((trainer.global_step, pl_module.net[0].weight.grad.clone()))


@pytest.mark.parametrize("skips", [(), (3,)])
def test_every_hook_sees_the_whole_gradient(skips: tuple[int, ...]) -> None:
    watch, module = Watch(), Regression(skips)
    fit(module, loader(7), watch, FullBatch(), max_epochs=1)
    fresh = Regression()
    kept = 21 if skips else SAMPLES
    fresh.loss(X[:kept], Y[:kept]).backward()
    assert len(watch.seen) == 2
    for _, gradient in watch.seen:
        torch.testing.assert_close(gradient, fresh.net[0].weight.grad)


class Reads(Regression):
    def configure_optimizers(self) -> Any:
        self.estimated = self.trainer.estimated_stepping_batches
        return super().configure_optimizers()


@pytest.mark.parametrize("first", [False, True])
def test_the_run_has_one_step_for_each_epoch(first: bool) -> None:
    schedule = LinearLR()
    module, pair = Reads(), [FullBatch(), schedule]
    trainer = fit(module, loader(7), *(pair if first else pair[::-1]))
    assert module.estimated == 3
    assert schedule.state_dict()["total_steps"] == 3
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0)
    assert trainer.accumulate_grad_batches == 1  # type: ignore[attr-defined]


def test_the_trainer_gets_its_setting_back_after_an_exception() -> None:
    class Crashes(Regression):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise ZeroDivisionError

    trainer = Trainer(**QUIET, devices=1, max_epochs=1, callbacks=[FullBatch()])
    with pytest.raises(ZeroDivisionError):
        trainer.fit(Crashes(), loader(7))
    assert trainer.accumulate_grad_batches == 1  # type: ignore[attr-defined]
    module = Regression()
    trainer.fit(module, loader(7))
    assert_weights(module, by_hand(Regression(), 1))


def test_validation_within_a_pass_leaves_the_gradient_alone() -> None:
    class Validates(Regression):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self.loss(*batch))

    module = Validates()
    trainer = Trainer(
        **QUIET, devices=1, max_epochs=3, val_check_interval=2, callbacks=[FullBatch()]
    )
    trainer.fit(module, loader(7), loader(5))
    assert_weights(module, by_hand(Regression(), 3))


def test_a_loader_that_grows_between_epochs() -> None:
    class Grows(Regression):
        def train_dataloader(self) -> Any:
            return loader(12 - 4 * self.trainer.current_epoch)

    module = Grows()
    trainer = Trainer(
        **QUIET,
        devices=1,
        max_epochs=3,
        callbacks=[FullBatch()],
        reload_dataloaders_every_n_epochs=1,
    )
    trainer.fit(module)
    assert_weights(module, by_hand(Regression(), 3))


def test_a_pass_that_is_broken_off_is_told() -> None:
    class BreaksOff(Regression):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
            return -1 if self.trainer.current_epoch == 0 and batch_idx == 2 else None

    module = BreaksOff()
    with pytest.warns(UserWarning, match="epoch 0 ended before its last batch"):
        fit(module, loader(7), FullBatch())
    assert_weights(module, by_hand(Regression(), 2))


# ---- what it refuses ----


def test_other_accumulation_is_a_conflict() -> None:
    scheduler = GradientAccumulationScheduler({0: 1, 1: 2})
    for pair in ([FullBatch(), scheduler], [scheduler, FullBatch()]):
        with pytest.raises(ConflictError, match=r"FullBatch\(\).*GradientAccumulationScheduler"):
            fit(Regression(), loader(7), *pair)


def test_lbfgs_is_refused() -> None:
    with pytest.raises(TechniqueError, match="LBFGS"):
        fit(Regression(optimizer=torch.optim.LBFGS), loader(7), FullBatch())


def test_a_step_that_takes_the_iterator_is_refused() -> None:
    class TakesIterator(Regression):
        def training_step(self, dataloader_iter: Any) -> Any:  # type: ignore[override]
            return self.loss(*next(dataloader_iter)[0])

    with pytest.raises(TechniqueError, match="dataloader_iter"):
        fit(TakesIterator(), loader(7), FullBatch())


def odd(samples: list[Any]) -> Any:
    x, y = (torch.stack(part) for part in zip(*samples, strict=True))
    return x, y, torch.zeros(3)


class TakesOdd(Regression):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch[0], batch[1])


def test_a_batch_in_doubt_is_refused_and_a_key_helps() -> None:
    with pytest.raises(TechniqueError, match=r"FullBatch\(\): can't tell how many .*input_key"):
        fit(TakesOdd(), loader(7, collate_fn=odd), FullBatch())
    module = TakesOdd()
    fit(module, loader(7, collate_fn=odd), FullBatch(input_key=0))
    assert_weights(module, by_hand(Regression(), 3))


def test_one_batch_is_told() -> None:
    with pytest.warns(NoEffectWarning, match="in one batch"):
        fit(Regression(), loader(SAMPLES), FullBatch())


# ---- resuming in the middle of a pass ----


class Saves(Callback):
    def __init__(self, path: Path, batch: int) -> None:
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            trainer.save_checkpoint(self.path)


def resume(path: Path, data: Any, *callbacks: Callback, **arguments: Any) -> Regression:
    module = Regression()
    settings = {**QUIET, "devices": 1, "max_epochs": 3, **arguments}
    Trainer(callbacks=list(callbacks), **settings).fit(module, data, ckpt_path=path)
    return module


def tensor_loader() -> TensorLoader:
    return TensorLoader(X, Y, batch_size=7, shuffle=True)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("batch", [3, 4, 5, 6])  # the end of the first pass, and inside the second
def test_resume_is_exact(tmp_path: Path, batch: int, half: bool) -> None:
    path, twin = tmp_path / "x.ckpt", Regression()
    fit(twin, tensor_loader(), FullBatch(), Saves(path, batch), plugins=scaled(half))
    state = torch.load(path, weights_only=True)["callbacks"]["FullBatch()"]
    assert ("pass_under_way" in state) == (batch > 3)
    module = resume(path, tensor_loader(), FullBatch(), plugins=scaled(half))
    assert_weights(module, [p.detach() for p in twin.parameters()], rtol=0, atol=0)


def test_a_loader_that_forgets_is_refused_inside_a_pass(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    fit(Regression(), loader(7), FullBatch(), Saves(path, 5))
    with pytest.raises(CheckpointError, match="no load_state_dict"):
        resume(path, loader(7), FullBatch())
    fit(Regression(), loader(7), FullBatch(), Saves(path, 3))
    assert_weights(resume(path, loader(7), FullBatch()), by_hand(Regression(), 3))


def test_a_pass_that_was_begun_without_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    fit(Regression(), tensor_loader(), Saves(path, 5))
    with pytest.raises(CheckpointError, match="saved without it"):
        resume(path, tensor_loader(), FullBatch())


class SavesAtEpochEnd(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("limit", [2, None])
def test_an_epoch_end_is_no_middle(tmp_path: Path, limit: int | None) -> None:
    path, data = tmp_path / "x.ckpt", DataLoader(Endless(), 7) if limit is None else loader(7)
    fit(Regression(), data, FullBatch(), SavesAtEpochEnd(path), limit_train_batches=limit)
    module = resume(path, data, FullBatch(), limit_train_batches=limit)
    end = SAMPLES if limit is None else 14
    assert_weights(module, by_hand(Regression(), 3, X[:end], Y[:end]))


# ---- several ranks ----


class Shares(list[Any]):
    """The batches of one rank; forgets its place, as a list does, but doesn't say so."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def shares(rank: int) -> Shares:
    cuts = ([0, 5, 9], [9, 16, SAMPLES])[rank]
    return Shares((X[a:b], Y[a:b]) for a, b in pairwise(cuts))


class Sharded(Regression):
    def configure_model(self) -> None:
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


def on_rank(rank: int, kind: str, folder: Path) -> None:
    module: Regression = Regression() if kind == "ddp" else Sharded()
    strategy: Any = "ddp"
    if kind == "sharded":
        strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    arguments: dict[str, Any] = {"devices": 2, "strategy": strategy}
    fit(module, shares(rank), FullBatch(), Saves(folder / "x.ckpt", 2), **arguments)
    refused = ""
    if kind == "ddp":
        try:
            resume(folder / "x.ckpt", shares(rank), FullBatch(), **arguments)
        except CheckpointError as error:
            refused = str(error)
    weights = [whole(parameter.detach()) for parameter in module.parameters()]
    torch.save((weights, refused), folder / f"{rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "sharded"])
def test_ranks_with_different_shares(tmp_path: Path, kind: str) -> None:
    call_on_ranks(on_rank, kind, tmp_path, folder=tmp_path)
    for rank in range(2):
        weights, refused = torch.load(tmp_path / f"{rank}.pt")
        assert kind == "sharded" or "middle of an epoch" in refused
        for got, want in zip(weights, by_hand(Regression(), 3), strict=True):
            torch.testing.assert_close(got, want)


# ---- the function ----


def test_the_function_gives_the_gradient_of_the_whole_set() -> None:
    module = Regression()
    parameters = [*module.parameters(), nn.Parameter(torch.zeros(2))]
    got = full_batch_gradient(lambda batch: module.loss(*batch), loader(7), parameters)
    want = torch.autograd.grad(module.loss(X, Y), list(module.parameters()))
    for one, other in zip(got, [*want, torch.zeros(2)], strict=True):
        torch.testing.assert_close(one, other)
    assert all(parameter.grad is None for parameter in parameters)


def test_the_function_needs_samples() -> None:
    with pytest.raises(ValueError, match="no samples"):
        full_batch_gradient(lambda batch: batch.sum(), [], [])
