"""What the user is told of channels that are removed."""

import logging
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_dlopt.core import TechniqueError
from tests.contract.run import train
from tests.structure.pruned import WIDE, prune


def test_each_removal_says_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        outcome = train(WIDE, [prune()])
    (line,) = [record.message for record in caplog.records if "ChannelPruning" in record.message]
    width = outcome.module.net[0].out_features
    assert f"net.0 out_features 16 -> {width}" in line
    assert "% of the multiply-adds" in line
    assert "they are the module's outputs" in line


class Falls(Callback):
    """Logs a value that is best at first, or at last."""

    def __init__(self, best: str) -> None:
        self.sign = 1 if best == "first" else -1

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("value", float(self.sign * trainer.current_epoch))


@pytest.mark.parametrize("best", ["first", "last"])
def test_a_best_checkpoint_of_a_larger_model_is_warned_of(best: str, tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path, monitor="value", mode="min")
    outcome = train(
        WIDE,
        [prune(at="2ep")],
        callbacks=[Falls(best), saving],
        enable_checkpointing=True,
    )
    told = [str(w.message) for w in outcome.told if "best by value" in str(w.message)]
    assert len(told) == (1 if best == "first" else 0)
    assert all(saving.best_model_path in message for message in told)


def test_a_missing_package_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    outcome = train(WIDE, [prune()], keep_error=True)
    assert isinstance(outcome.error, TechniqueError)
    assert "pip install 'lightning-dlopt[pruning]'" in str(outcome.error)
    assert not outcome.batches
