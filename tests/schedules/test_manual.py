"""Manual optimization: only the module knows when it steps, so a batch counts as a step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.optim import SGD

from lightning_dlopt.core import ArgumentError, TechniqueError
from lightning_dlopt.schedules import LinearLR, MultiStepLR, StepLR


def two_optimizers(tiny: Any, *, own_scheduler: bool = False) -> Any:
    """Return a module with an optimizer for each layer; the second steps every other batch."""

    class Manual(tiny):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.seen: list[list[float]] = []

        def training_step(self, batch: Any, batch_idx: int) -> None:
            first, second = self.optimizers()
            self.seen.append([first.param_groups[0]["lr"], second.param_groups[0]["lr"]])
            self.manual_backward(self.loss(batch))
            first.step()
            if batch_idx % 2:
                second.step()

        def configure_optimizers(self) -> Any:
            optimizers = [
                SGD(layer.parameters(), lr=rate)
                for layer, rate in zip((self.first, self.second), self.rates, strict=True)
            ]
            if own_scheduler:
                return optimizers, [torch.optim.lr_scheduler.StepLR(optimizers[0], 1)]
            return optimizers

    return Manual()


@pytest.mark.filterwarnings("error:Detected call of")
def test_rates_follow_the_curve_per_batch(tiny: Any, fit: Any, times_rates: Any) -> None:
    module = two_optimizers(tiny)
    fit(LinearLR(), module=module)
    assert module.seen == times_rates([1 - batch / 20 for batch in range(20)])


def test_epochs_are_counted_in_batches(tiny: Any, fit: Any, times_rates: Any) -> None:
    module = two_optimizers(tiny)
    fit(StepLR("0.5ep", 0.5), module=module)
    assert module.seen == times_rates([0.5 ** (batch // 5) for batch in range(20)])


def test_max_steps_alone_gives_no_length(tiny: Any, fit: Any) -> None:
    module = two_optimizers(tiny)
    with pytest.raises(ArgumentError, match=r"LinearLR\(\) needs .*manual optimization: max_epoch"):
        fit(LinearLR(), module=module, max_steps=20)
    assert module.seen == []


def test_spans_in_steps_need_no_length(tiny: Any, fit: Any, times_rates: Any) -> None:
    module = two_optimizers(tiny)
    fit(MultiStepLR([4], 0.1), module=module, max_steps=15)
    assert module.seen == times_rates([1.0] * 4 + [0.1] * 6)  # 10 batches, 15 steps of optimizers


def test_resume(tmp_path: Any, tiny: Any, fit: Any, times_rates: Any) -> None:
    first = two_optimizers(tiny)
    path = tmp_path / "c.ckpt"
    fit(LinearLR(), module=first, max_epochs=2).trainer.save_checkpoint(path)
    second = two_optimizers(tiny)
    with pytest.warns(UserWarning, match="the run had 20 steps .* has 40 now"):
        fit(LinearLR(), module=second, max_epochs=4, ckpt_path=path)
    assert second.seen == times_rates([1 - batch / 40 for batch in range(20, 40)])


def test_a_scheduler_that_the_module_steps_by_itself_is_not_replaced(tiny: Any, fit: Any) -> None:
    with pytest.raises(TechniqueError, match="steps it by itself"):
        fit(LinearLR(replace=True), module=two_optimizers(tiny, own_scheduler=True))


class SaveAt(Callback):
    """Saves after a given number of batches, as the last callback does."""

    def __init__(self, batch: int, path: Path) -> None:
        self.batch = batch
        self.path = path

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.batch:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("batch", [1, 4, 9, 13])
def test_resume_in_the_middle_of_an_epoch(
    batch: int, tmp_path: Path, tiny: Any, fit: Any, times_rates: Any
) -> None:
    path = tmp_path / "c.ckpt"
    fit(LinearLR(), SaveAt(batch, path), module=two_optimizers(tiny))
    module = two_optimizers(tiny)
    fit(LinearLR(), module=module, ckpt_path=path)
    expected = times_rates([1 - batch / 20 for batch in range(20)])
    assert module.seen == expected[batch:]


def test_a_module_that_steps_whatever_scheduler_there_is(
    tiny: Any, fit: Any, times_rates: Any
) -> None:
    module = two_optimizers(tiny)
    original = module.training_step

    def training_step(batch: Any, batch_idx: int) -> Any:
        original(batch, batch_idx)
        for scheduler in module.lr_schedulers() or []:
            scheduler.step()

    module.training_step = training_step
    fit(LinearLR(), module=module, max_epochs=2)
    assert module.seen == times_rates([1 - batch / 20 for batch in range(20)])
