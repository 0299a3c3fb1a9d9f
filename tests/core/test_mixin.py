from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_dlopt import (
    L1,
    ClipGradNorm,
    OptimizerMixin,
    RegularizationMixin,
    TechniqueError,
)
from tests.quiet import QUIET


class Saves(OptimizerMixin, RegularizationMixin, BoringModel):
    def __init__(self, rate: float = 0.1, hidden: int = 3, **techniques: Any) -> None:
        super().__init__(**techniques)
        self.save_hyperparameters(ignore="hidden")


def test_hyperparameters_are_saved_without_the_techniques(tmp_path: Path) -> None:
    module = Saves(0.25, regularization=L1(0.1), optimization=[ClipGradNorm(1.0)])
    trainer = Trainer(**QUIET, max_steps=1)
    trainer.fit(module)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"] == {"rate": 0.25}
    loaded = Saves.load_from_checkpoint(tmp_path / "last.ckpt", regularization=L1(0.1))
    assert loaded.hparams["rate"] == 0.25
    assert float(loaded.regularization_loss()) > 0


def test_a_mixin_after_the_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Late: the mixins come before LightningModule"):
        type("Late", (BoringModel, RegularizationMixin), {})


class Skips(RegularizationMixin, BoringModel):
    def __init__(self) -> None:
        BoringModel.__init__(self)


def test_a_constructor_that_goes_past_the_mixin_is_told() -> None:
    with pytest.raises(TechniqueError, match=r"Skips has not called the constructor"):
        Trainer(**QUIET, max_steps=1).fit(Skips())
