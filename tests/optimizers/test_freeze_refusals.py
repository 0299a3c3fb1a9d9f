"""What FreezeLayers refuses, and where it has no effect."""

from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from lightning_dlopt.core import NoEffectWarning, TechniqueError
from lightning_dlopt.optimizers import FreezeLayers
from tests.optimizers.frozen import Module, fit


def test_a_pattern_that_matches_nothing() -> None:
    with pytest.raises(TechniqueError, match=r"FreezeLayers.*'body'.*head\.weight"):
        fit(Module(), FreezeLayers(["head", "body"], until=3))


@pytest.mark.parametrize("when", [{"until": 3}, {"after": "50%"}])
def test_freezing_all(when: Any) -> None:
    with pytest.raises(TechniqueError, match="every parameter that SGD trains"):
        fit(Module(), FreezeLayers("*", **when))


def test_two_that_freeze_all_together() -> None:
    with pytest.raises(TechniqueError, match="every parameter that SGD trains"):
        fit(Module(), FreezeLayers("head", until=3), FreezeLayers("encoder", until=2))
    fit(Module(), FreezeLayers("head", until=3), FreezeLayers("encoder", after=3))


class TwoOptimizers(Module):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.zero_grad()
            self.manual_backward(self.loss(*batch))
            optimizer.step()

    def configure_optimizers(self) -> Any:
        parts = (self.encoder, self.head)
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in parts]


def test_one_of_two_optimizers_may_rest() -> None:
    snapshots = fit(TwoOptimizers(), FreezeLayers("encoder", until=3))
    assert snapshots.changed("encoder") == [False] * 3 + [True] * 5
    plugins = [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]
    with pytest.raises(TechniqueError, match="every parameter that SGD trains"):
        fit(TwoOptimizers(), FreezeLayers("encoder", until=3), plugins=plugins)


def test_no_effect() -> None:
    module = Module()
    module.encoder.requires_grad_(False)
    with pytest.warns(NoEffectWarning, match="trained by an optimizer"):
        fit(module, FreezeLayers("encoder", until=3))
    with pytest.warns(NoEffectWarning, match="until=0"):
        fit(Module(), FreezeLayers("encoder", until=0))
    with pytest.warns(NoEffectWarning, match="end of the run"):
        fit(Module(), FreezeLayers("encoder", after="2ep"))


def test_spans_need_a_known_end() -> None:
    with pytest.raises(TechniqueError, match=r"FreezeLayers.*run of known length"):
        fit(Module(), FreezeLayers("encoder", until="30%"), max_epochs=-1, max_time="00:00:00:09")
