"""What EMA does with buffers that aren't plain statistics."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional

from lightning_dlopt import EMA, TensorLoader
from tests.optimizers import toy
from tests.optimizers.toy import Toy

VALIDATION = TensorLoader(torch.ones(4, 3), torch.ones(4, 2), batch_size=2)


def fit(module: LightningModule, **settings: Any) -> None:
    trainer = toy.Trainer(
        **{**toy.QUIET, "num_sanity_val_steps": 0, "devices": 1, **settings}, callbacks=[EMA(0.5)]
    )
    trainer.fit(module, toy.loader(), VALIDATION)


class Masked(Toy):
    def __init__(self) -> None:
        super().__init__()
        mask = torch.full((4, 4), -torch.inf).triu(1)
        self.register_buffer("mask", mask.clone())
        self.fixed = nn.Parameter(mask.clone(), requires_grad=False)
        self.register_buffer("best", torch.tensor(torch.inf))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.best.fill_(8.0 - batch_idx)
        return super().training_step(batch, batch_idx)


def test_what_is_not_finite_never_makes_an_average_nan() -> None:
    module, expected = Masked(), Masked().mask
    module.best.fill_(-torch.inf)
    fit(module, max_epochs=2)
    assert torch.equal(module.mask, expected)
    assert torch.equal(module.fixed, expected)
    average = torch.tensor(8.0)
    for step in range(1, 12):
        average = (average + 8 - step % 6) / 2
    torch.testing.assert_close(module.best, average)


class Validates(Toy):
    """Keeps records of its validation, and notes them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("validations", torch.tensor(0))
        self.register_buffer("last", torch.tensor(0.0))
        self.register_buffer("replaced", torch.tensor([0.0]))
        self.register_buffer("statistic", torch.tensor(0.0))
        self.seen: list[list[float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.statistic += 1
        return functional.mse_loss(self.net(batch[0]), batch[1]) + 0 * self.replaced.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validations += 1
        self.last.fill_(float(self.validations) + self.current_epoch)
        self.replaced = torch.full((int(self.validations),), 7.0)

    def on_train_epoch_end(self) -> None:
        values = (self.validations, self.last, self.replaced.sum(), self.statistic)
        self.seen.append([float(value) for value in values])


def test_what_validation_writes_into_buffers_stays() -> None:
    module = Validates()
    fit(module, max_epochs=3)
    steps, rounds = toy.STEPS, len(VALIDATION)
    assert module.seen == [
        [rounds * n, rounds * n + n - 1, 7.0 * rounds * n, steps * n] for n in (1, 2, 3)
    ]
    assert int(module.validations) == rounds * 3
    assert float(module.last) == rounds * 3 + 2
    assert torch.equal(module.replaced, torch.full((rounds * 3,), 7.0))
    assert steps * 3 - 2 < float(module.statistic) < steps * 3  # this one is averaged


class Reshapes(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hidden", torch.zeros(1))
        self.register_buffer("gone", torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.hidden = torch.full((1 + batch_idx,), float(batch_idx))
        if batch_idx == 3:
            del self.gone
        return super().training_step(batch, batch_idx)


def test_a_buffer_of_another_shape_is_copied() -> None:
    module = Reshapes()
    fit(module, max_epochs=1)
    assert torch.equal(module.hidden, torch.full((6,), 5.0))
