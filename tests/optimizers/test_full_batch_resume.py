"""FullBatch resumed in the middle of a pass."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from lightning_dlopt.core import CheckpointError
from lightning_dlopt.data import TensorLoader
from lightning_dlopt.optimizers import FullBatch
from tests.optimizers.whole_set import (
    SAMPLES,
    Endless,
    Regression,
    Saves,
    X,
    Y,
    assert_weights,
    by_hand,
    fit,
    loader,
    resume,
    scaled,
)


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
