from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.plugins import MixedPrecision

from lightning_dlopt.core import Technique
from lightning_dlopt.core.gradients import unscale_gradients, with_gradients
from tests.quiet import QUIET


class Seen(Technique):
    def __init__(self, times: int) -> None:
        self.times = times
        self.gradients: list[torch.Tensor] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for _ in range(self.times):
            unscale_gradients(trainer, optimizer)
        self.gradients += [p.grad.detach().clone() for p in with_gradients(optimizer)]


class Skips(BoringModel):
    """Returns no loss for its second batch; uses torch's fused SGD if ``fused``."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, fused=self.fused)


def seen(fused: bool, precision: bool, times: int) -> Seen:
    torch.manual_seed(0)
    callback = Seen(times)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plugins = [MixedPrecision("16-mixed", "cpu", scaler)] if precision else []
    trainer = Trainer(**QUIET, callbacks=[callback], plugins=plugins, max_steps=4, devices=1)
    trainer.fit(Skips(fused))
    return callback


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("times", [1, 2])
def test_gradients_are_those_of_the_loss(fused: bool, times: int) -> None:
    scaled, plain = seen(fused, True, times).gradients, seen(fused, False, times).gradients
    assert len(scaled) == len(plain) >= 6
    for left, right in zip(scaled, plain, strict=True):
        torch.testing.assert_close(left, right, rtol=0.02, atol=1e-3)


def test_without_the_call_a_fused_optimizer_has_scaled_gradients() -> None:
    # what the function is there for: Lightning leaves them scaled
    scaled, plain = seen(True, True, 0).gradients, seen(True, False, 0).gradients
    assert scaled[0].norm() > 500 * plain[0].norm()


def test_a_parameter_in_two_groups_comes_once() -> None:
    shared = torch.nn.Parameter(torch.ones(1))
    shared.square().backward()
    with pytest.warns(UserWarning, match="duplicate"):
        optimizer = torch.optim.SGD([{"params": [shared, shared]}], lr=0.1)
    assert len(with_gradients(optimizer)) == 1


class LastOfWindowSkips(BoringModel):
    """Returns no loss for every fourth batch, the last one of a window of two."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.norms: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 4 == 1 else super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, fused=self.fused)


class Reads(Technique):
    """Unscales, and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.told.append(unscale_gradients(trainer, optimizer))


@pytest.mark.parametrize("fused", [False, True])
def test_a_window_whose_last_batch_has_no_loss(fused: bool) -> None:
    def weights(*callbacks: Callback) -> torch.Tensor:
        torch.manual_seed(0)
        plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
        settings: dict[str, Any] = {**QUIET, "accumulate_grad_batches": 2, "max_epochs": 1}
        module = LastOfWindowSkips(fused)
        trainer = Trainer(
            callbacks=[*callbacks], plugins=[plugin], limit_train_batches=12, devices=1, **settings
        )
        trainer.fit(module)
        return module.layer.weight.detach()

    technique = Reads()
    # Lightning makes no step then, so nothing may be unscaled
    assert torch.equal(weights(technique), weights())
    assert technique.told == [False, True] * 3
