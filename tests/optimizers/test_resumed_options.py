"""UseOptimizer on resuming: options that its name doesn't tell."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import SGD, AdamW

from lightning_dlopt import CosineLR, UseOptimizer
from lightning_dlopt.core import CheckpointError
from tests.optimizers.toy import Toy, fit, toy


class Scheduled(Toy):
    """Brings a scheduler that changes the rate as soon as it is made."""

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), lr=0.3)
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.25, total_iters=9)
        return [optimizer], [{"scheduler": warm, "interval": "step"}]


def resume(folder: Path, before: Any, after: Any, *beside: Any, cls: Any = Toy) -> None:
    saving = ModelCheckpoint(folder, "one", every_n_train_steps=3, save_top_k=-1)
    fit(toy(cls), before, saving, *beside, enable_checkpointing=True, max_epochs=2)
    path = folder / "one.ckpt"
    torch.load(path, weights_only=True)
    fit(toy(cls), after, *beside, ckpt_path=path, max_epochs=2)


def plain_function(lr: float = 0.1, **options: Any) -> UseOptimizer:
    return UseOptimizer(lambda params: SGD(params, lr=lr, **options))


def tensor_rate(lr: float) -> UseOptimizer:
    return UseOptimizer(partial(AdamW, lr=torch.tensor(lr)), no_decay=None)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (plain_function(), plain_function(0.5), r"made with lr=0\.1, and now it is 0\.5"),
        (
            plain_function(weight_decay=0.1),
            plain_function(weight_decay=0.2),
            r"weight_decay=0\.1 in param group 0, and now it is 0\.2",
        ),
        (
            plain_function(weight_decay=0.1),
            plain_function(),
            "made with 2 param groups, and now there are 1",
        ),
        (tensor_rate(0.25), tensor_rate(0.5), r"made with lr=0\.25, and now it is 0\.5"),
    ],
)
def test_options_that_the_name_does_not_tell_are_compared(
    before: Any, after: Any, why: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=why):
        resume(tmp_path, before, after)


@pytest.mark.parametrize("make", [plain_function, partial(tensor_rate, 0.25)])
def test_the_same_options_are_resumed_whatever_a_schedule_made_of_them(
    make: Any, tmp_path: Path
) -> None:
    resume(tmp_path, make(), make(), cls=Scheduled)
    resume(tmp_path / "ours", make(), make(), CosineLR())


def test_another_implementation_of_the_same_steps_is_resumed(tmp_path: Path) -> None:
    resume(tmp_path, plain_function(foreach=True), plain_function(foreach=False))
