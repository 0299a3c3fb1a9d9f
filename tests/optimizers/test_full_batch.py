"""FullBatch against gradients of the whole set taken in one piece."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_dlopt.optimizers import FullBatch, full_batch_gradient
from lightning_dlopt.schedules import LinearLR
from tests.optimizers.whole_set import (
    SAMPLES,
    Endless,
    Regression,
    X,
    Y,
    assert_weights,
    by_hand,
    fit,
    loader,
    scaled,
)
from tests.quiet import QUIET


class Summed(Regression):
    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.net(x) - y).square().sum() / 100


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
