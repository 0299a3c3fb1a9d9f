import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision

from lightning_dlopt import QuantileClip
from lightning_dlopt.optimizers import quantile_norm
from tests.metrics_file import logged
from tests.quiet import QUIET

NORMS = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0, 5.0, 8.0]


class GivenNorms(BoringModel):
    """Each batch's gradient has the norm that is given for it."""

    def __init__(self, norms: Sequence[float]) -> None:
        super().__init__()
        self.norms = norms
        self.layer = torch.nn.Linear(4, 1, bias=False)
        self.used: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer.weight.sum() / 2 * self.norms[batch_idx]

    def on_before_zero_grad(self, optimizer: Any) -> None:
        if self.layer.weight.grad is not None:
            self.used.append(float(self.layer.weight.grad.norm()))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def clipped_norms(technique: QuantileClip, norms: Sequence[float], **arguments: Any) -> list[float]:
    module = GivenNorms([*norms, 0.0])
    settings: dict[str, Any] = {**QUIET, "limit_val_batches": 0, "max_steps": len(norms) + 1}
    Trainer(callbacks=[technique], devices=1, **{**settings, **arguments}).fit(module)
    return module.used


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_the_limit_is_the_quantile_of_all_norms_so_far(quantile: float) -> None:
    expected = [
        min(norm, np.percentile(NORMS[: index + 1], 100 * quantile))
        for index, norm in enumerate(NORMS)
    ]
    assert clipped_norms(QuantileClip(quantile), NORMS) == pytest.approx(expected, rel=1e-5)


def test_old_norms_are_forgotten() -> None:
    expected = [
        min(norm, np.percentile(NORMS[max(0, index - 2) : index + 1], 50))
        for index, norm in enumerate(NORMS)
    ]
    used = clipped_norms(QuantileClip(0.5, history=3), NORMS)
    assert used == pytest.approx(expected, rel=1e-5)


def test_a_norm_that_is_not_finite_is_shown_and_not_counted() -> None:
    norms = [1.0, 2.0, math.inf, 3.0]
    technique = QuantileClip(0.5)
    used = clipped_norms(technique, norms)
    assert used[:2] == pytest.approx([1.0, 1.5], rel=1e-5)
    assert math.isnan(used[2])
    assert technique.extra_state()["norms"] == pytest.approx([1.0, 2.0, 3.0, 0.0], rel=1e-6)


def test_a_first_norm_that_is_not_finite() -> None:
    assert math.isnan(clipped_norms(QuantileClip(), [math.inf])[0])


def test_a_second_fit_starts_with_no_norms() -> None:
    technique = QuantileClip(0.5)
    clipped_norms(technique, [100.0] * 5)
    assert clipped_norms(technique, [1.0, 3.0]) == pytest.approx([1.0, 2.0], rel=1e-5)


def test_an_overflow_of_16_bit_training_is_not_counted() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**17)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)

    class Overflows(GivenNorms):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            output = self.layer(torch.ones(1, 4).half()).sum()
            return output * self.norms[batch_idx] / 2

    module = Overflows([1.0] * 5)
    technique = QuantileClip(0.5)
    settings: dict[str, Any] = {**QUIET, "limit_val_batches": 0, "max_steps": 5}
    trainer = Trainer(callbacks=[technique], devices=1, plugins=[plugin], **settings)
    trainer.fit(module)
    norms = technique.extra_state()["norms"]
    assert scaler.get_scale() < 2.0**17, "nothing overflowed"
    assert len(norms) < 5
    assert norms == pytest.approx([1.0] * len(norms), rel=1e-2)


def test_what_is_logged(tmp_path: Any) -> None:
    logger = CSVLogger(tmp_path)
    clipped_norms(QuantileClip(0.5), [1.0, 2.0, 3.0], logger=logger, log_every_n_steps=3)
    (row,) = logged(tmp_path, "clip_norm")
    assert row["grad_norm"] == pytest.approx(3.0, rel=1e-5)
    assert row["clip_norm"] == pytest.approx(2.0, rel=1e-5)
    assert row["clipped_share"] == pytest.approx(2 / 3)


def test_the_function() -> None:
    assert quantile_norm(NORMS, 0.37) == pytest.approx(np.percentile(NORMS, 37))
    with pytest.raises(ValueError, match=r"quantile=1\.5"):
        quantile_norm(NORMS, 1.5)
