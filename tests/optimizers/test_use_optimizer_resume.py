"""UseOptimizer on resuming: another optimizer than the checkpoint's, and the same."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch.optim import SGD, AdamW

from lightning_dlopt import UseOptimizer
from lightning_dlopt.core import CheckpointError
from tests.optimizers.grouped import DECAYING, Groups
from tests.optimizers.toy import Toy, fit, rates, toy


def checkpoint(folder: Path, *techniques: Any, cls: Any = Toy) -> Path:
    fit(
        toy(cls),
        *techniques,
        ModelCheckpoint(folder, "one", every_n_train_steps=3, save_top_k=-1),
        enable_checkpointing=True,
    )
    return folder / "one.ckpt"


@pytest.mark.parametrize(
    ("then", "why"),
    [
        (UseOptimizer(SGD), "AdamW.*SGD.*Resume with that"),
        (UseOptimizer(partial(AdamW, lr=1.0)), "Resume with that.*load the weights alone"),
        (UseOptimizer(DECAYING, no_decay=None), "Resume with that"),
    ],
)
def test_another_optimizer_than_the_checkpoints_is_refused(
    tmp_path: Path, then: Any, why: str
) -> None:
    path = checkpoint(tmp_path, UseOptimizer(DECAYING))
    with pytest.raises(CheckpointError, match=f"(?s)saved with UseOptimizer.*{why}"):
        fit(toy(), then, ckpt_path=path, max_epochs=2)
    fit(toy(), UseOptimizer(DECAYING), ckpt_path=path, max_epochs=2)


def test_a_checkpoint_of_the_modules_own_optimizer_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"module's own optimizer.*without UseOptimizer"):
        fit(toy(), UseOptimizer(DECAYING), ckpt_path=path, max_epochs=2)


def test_a_function_that_makes_another_class_is_refused(tmp_path: Path) -> None:
    kinds: list[Any] = [AdamW]

    def make(params: Any) -> Any:
        return kinds[-1](params)

    path = checkpoint(tmp_path, UseOptimizer(make))
    kinds.append(SGD)
    with pytest.raises(CheckpointError, match=r"state of torch.optim.adamw.AdamW.*torch.optim.sgd"):
        fit(toy(), UseOptimizer(make), ckpt_path=path, max_epochs=2)


class Crash(Toy):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 4:
            raise ZeroDivisionError
        return super().training_step(batch, batch_idx)


def test_a_checkpoint_that_an_exception_leaves_names_the_optimizer(tmp_path: Path) -> None:
    saving = OnExceptionCheckpoint(tmp_path, "crash")
    with pytest.raises(ZeroDivisionError):
        fit(toy(Crash), UseOptimizer(DECAYING), saving, enable_checkpointing=True)
    content = torch.load(tmp_path / "crash.ckpt", weights_only=True)
    (state,) = (state for state in content["callbacks"].values() if "technique" in state)
    assert state["optimizer_class"] == "torch.optim.adamw.AdamW"


class Scheduled(Groups):
    """Brings two schedulers that step with every step."""

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.25, total_iters=4)
        rest = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, rest], [4])
        return [optimizer], [{"scheduler": both, "interval": "step"}]


def test_a_run_with_the_modules_scheduler_is_resumed_bitwise(tmp_path: Path) -> None:
    whole, resumed = toy(Scheduled), toy(Scheduled)
    saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    one = fit(whole, UseOptimizer(DECAYING), saving, max_epochs=3, enable_checkpointing=True)
    two = fit(resumed, UseOptimizer(DECAYING), ckpt_path=tmp_path / "epoch=0.ckpt", max_epochs=3)
    assert rates(one) == rates(two)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name])
