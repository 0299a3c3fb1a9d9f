"""Two averages of the weights in one run, in any order."""

from pathlib import Path
from typing import Any

import pytest
import schedulefree
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging

from lightning_dlopt import EMA, CheckpointError, ConflictError, ScheduleFree, Technique
from tests.optimizers.toy import Toy, fit

AVERAGES = {
    "EMA": lambda: EMA(0.9),
    "ScheduleFree": ScheduleFree,
    "EMAWeightAveraging": lambda: EMAWeightAveraging(decay=0.9),
    "StochasticWeightAveraging": lambda: StochasticWeightAveraging(swa_lrs=0.1),
}


class Free(Toy):
    steps = 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.steps += 1
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        return schedulefree.SGDScheduleFree(self.parameters(), lr=0.1)


PAIRS = [(a, b) for a in ("EMA", "ScheduleFree") for b in AVERAGES if a != b]


@pytest.mark.parametrize(("ours", "other"), PAIRS)
@pytest.mark.parametrize("first", [True, False])
def test_two_averages_are_refused(ours: str, other: str, first: bool) -> None:
    names = [ours, other] if first else [other, ours]
    module = Free()
    with pytest.raises(ConflictError) as error:
        fit(module, *(AVERAGES[name]() for name in names))
    assert ours in str(error.value)
    assert other in str(error.value)
    assert module.steps == 0


@pytest.mark.parametrize(("saved", "resumed"), [(ScheduleFree(), EMA(0.9)), (EMA(0.9), None)])
def test_neither_goes_on_from_the_others_checkpoint(
    saved: Technique, resumed: Technique | None, tmp_path: Path
) -> None:
    path = tmp_path / "saved.ckpt"
    module = Free() if isinstance(saved, ScheduleFree) else Toy()
    fit(module, saved).save_checkpoint(path)
    with pytest.raises(CheckpointError, match=type(saved).__name__):
        fit(Free(), resumed or ScheduleFree(), ckpt_path=path, max_epochs=2)


def test_a_trainer_without_any_technique_is_warned_by_lightning(tmp_path: Path) -> None:
    path = tmp_path / "saved.ckpt"
    fit(Toy(), EMA(0.9)).save_checkpoint(path)
    with pytest.warns(UserWarning, match="add the following callbacks"):
        fit(Toy(), ckpt_path=path)
