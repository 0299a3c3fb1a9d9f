"""ScheduleFree on modules that change themselves, and beside Lightning's searches."""

from pathlib import Path
from typing import Any

import pytest
import schedulefree
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import ScheduleFree
from tests.optimizers import toy
from tests.optimizers.toy import Toy


class Free(Toy):
    lr = 0.1
    batch_size = 4

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return {"optimizer": schedulefree.SGDScheduleFree(self.parameters(), lr=self.lr)}

    def train_dataloader(self) -> Any:
        return toy.loader()


def fit(module: Any, *callbacks: Callback, validate: bool = True, **settings: Any) -> None:
    defaults = {**toy.QUIET, "devices": 1, "max_epochs": 3, **settings}
    trainer = toy.Trainer(**defaults, callbacks=[*callbacks, ScheduleFree()])
    trainer.fit(module, None, toy.loader() if validate else None)


class Edits(Free):
    """Sets a weight between epochs, after validation."""

    begin: Tensor

    def on_train_epoch_end(self) -> None:
        self.net[0].weight.data.fill_(0.25)
        self.others = {n: p.detach().clone() for n, p in self.named_parameters()}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 0:
            self.begin = self.net[0].weight.detach().clone()
            self.bias = self.net[0].bias.detach().clone()
        return super().training_step(batch, batch_idx)


def test_weights_that_are_set_after_validation_train_on() -> None:
    module, twin = toy.toy(Edits), toy.toy(Edits)
    fit(module, max_epochs=2)
    fit(twin, max_epochs=2, validate=False)
    assert torch.equal(module.begin, torch.full_like(module.begin, 0.25))
    assert torch.equal(module.bias, twin.bias)  # what wasn't set is as it was in training


class Grows(Free):
    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.extra = nn.Linear(3, 3)
            self.trainer.optimizers[0].add_param_group({"params": list(self.extra.parameters())})

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs = self.extra(batch[0]) if self.current_epoch else batch[0]
        return functional.mse_loss(self.net(inputs), batch[1])

    def on_train_batch_end(self, *_: Any) -> None:
        if self.current_epoch:
            self.last = self.extra.weight.detach().clone()


@pytest.mark.parametrize("validate", [True, False])
def test_a_group_that_comes_later(validate: bool) -> None:
    module = toy.toy(Grows)
    fit(module, validate=validate)
    optimizer: Any = module.trainer.optimizers[0]
    state = optimizer.state[module.extra.weight]
    evaluation = module.last.lerp(state["z"], 1 - 1 / 0.9)
    torch.testing.assert_close(module.extra.weight.data, evaluation)
    assert not torch.equal(module.extra.weight, module.last)


@pytest.mark.parametrize("first", [True, False])
def test_lightnings_searches_leave_training_as_it_is(first: bool, tmp_path: Path) -> None:
    for search in (
        LearningRateFinder(num_training_steps=4, update_attr=False),
        BatchSizeFinder(init_val=4, max_trials=1, steps_per_trial=1),
    ):
        module, twin = toy.toy(Free), toy.toy(Free)
        settings = {**toy.QUIET, "devices": 1, "max_epochs": 2, "default_root_dir": tmp_path}
        callbacks = [search, ScheduleFree()] if first else [ScheduleFree(), search]
        toy.Trainer(**settings, callbacks=callbacks).fit(module, None, toy.loader())
        toy.Trainer(**settings, callbacks=[ScheduleFree()]).fit(twin, None, toy.loader())
        for name, value in twin.state_dict().items():
            assert torch.equal(module.state_dict()[name], value), name
