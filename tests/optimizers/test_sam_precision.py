"""SAM where the gradients are computed in 16 bits."""

from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from lightning_dlopt import SAM
from tests.optimizers.sharpness import RHO, Module, assert_same, by_hand, fit


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_mixed_precision_moves_the_weights_it_computes_with(precision: Any, fused: bool) -> None:
    ours, reference, plain = Module(fused), Module(), Module()
    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0) if precision == "16-mixed" else None
    plugin = MixedPrecision(precision, "cpu", scaler)
    fit(ours, SAM(RHO), plugins=[plugin])
    by_hand(reference)
    fit(plain, plugins=[MixedPrecision(precision, "cpu", scaler)])
    gap = (plain.net[0].weight - reference.net[0].weight).norm()
    assert (ours.net[0].weight - reference.net[0].weight).norm() < 0.2 * gap


def test_weights_remembered_in_16_bits_are_forgotten() -> None:
    class Casts(Module):
        def loss(self, batch: Any) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=True):  # Lightning's: False
                return super().loss(batch)

    ours, reference, plain = Casts(), Module(), Module()
    fit(ours, SAM(RHO), precision="bf16-mixed")
    by_hand(reference)
    fit(plain)
    gap = (plain.net[0].weight - reference.net[0].weight).norm()
    assert (ours.net[0].weight - reference.net[0].weight).norm() < 0.2 * gap


def test_small_gradients_do_not_vanish_in_16_bits() -> None:
    class Tiny(Module):
        def loss(self, batch: Any) -> Tensor:
            return super().loss(batch) * 1e-7

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e6, momentum=0.9)

    ours, reference = Tiny(), Tiny()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    fit(ours, SAM(RHO), plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    by_hand(reference)
    assert_same(ours, reference, rtol=0.05, atol=0.02)
