"""Modules that replace their dropout layers in the course of training."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_dlopt.regularization import ScheduledDropout
from tests.quiet import QUIET


class Replaces(LightningModule):
    """Has one more layer in the second epoch, and another one in place of the second in the third.

    The recurrent layer has dropout between its own two; its rate is 0 in the first step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Dropout(0.1), nn.Identity())
        self.recurrent = nn.LSTM(1, 1, num_layers=2, dropout=0.4)
        self.x = nn.Parameter(torch.ones(50, 20))
        self.old = self.layers[0]
        self.rates: list[list[float]] = []
        self.outputs: list[Tensor] = []

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.layers[1] = nn.Dropout(0.2)
        if self.current_epoch == 2:
            self.layers[0] = nn.Dropout(0.3)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.rates.append([*(getattr(p, "p", -1.0) for p in self.layers), self.recurrent.dropout])
        self.outputs.append(self.layers(self.x * 1))
        return self.outputs[-1].sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.parametrize("target", ["all", ["*layers.*", "recurrent"]])
def test_replaced_layers_are_driven_from_the_next_epoch_on(target: Any) -> None:
    module = Replaces()
    technique = ScheduledDropout(0.0, 0.6, 3, target)
    trainer = Trainer(**QUIET, callbacks=[technique], max_epochs=3, devices=1)
    trainer.fit(module, DataLoader(range(2)))  # type: ignore[arg-type]
    rates = [0.0, 0.2, 0.4, 0.6, 0.6, 0.6]
    assert [[round(p, 6) for p in step] for step in module.rates] == [
        [rate, -1.0 if index < 2 else rate, rate] for index, rate in enumerate(rates)
    ]
    # two layers of 0.4 leave 36%, and each its own share
    kept = [float((out != 0).float().mean()) for out in module.outputs]
    assert kept == pytest.approx([1.0, 0.8, 0.36, 0.16, 0.16, 0.16], abs=0.05)
    assert [module.old.p, *(p.p for p in module.layers)] == [0.1, 0.3, 0.2]
    assert module.recurrent.dropout == 0.4
    assert all(vars(p).keys() == vars(nn.Dropout()).keys() for p in (module.old, *module.layers))
