"""Schedules in checkpoints: what goes on exactly, what is refused, what is told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.optim import lr_scheduler

from lightning_dlopt.core import CheckpointError, Technique
from lightning_dlopt.schedules import (
    ConstantLR,
    CosineLR,
    CosineRestartsLR,
    CyclicLR,
    ExponentialDecayLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PiecewiseLR,
    Schedule,
    StepLR,
    WarmupStableDecayLR,
)


class Other(Technique):
    """A technique that is no schedule."""


def save(fit: Any, path: Path, *callbacks: Any, **arguments: Any) -> Any:
    """Train for an epoch of ten steps and save there."""
    run = fit(*callbacks, **{"max_epochs": 1, **arguments})
    run.trainer.save_checkpoint(path)
    return run


# what these do doesn't depend on the run's length, so a longer run is the same run
OPEN_ENDED: list[Any] = [
    lambda: ConstantLR(warmup=7),
    lambda: StepLR(6, 0.5),
    lambda: MultiStepLR([4, 15], 0.5),
    lambda: PiecewiseLR([5, 9, 20], [0.5, 0.1, 0.9], "cosine"),
    lambda: ExponentialDecayLR(0.5),
    lambda: CosineRestartsLR(4, 2.0),
    lambda: CyclicLR(8, 0.5, 2.0, warmup=3),
]


@pytest.mark.filterwarnings("ignore:.*has no effect")
@pytest.mark.filterwarnings("error:.*the run had")
@pytest.mark.parametrize("make", OPEN_ENDED, ids=lambda make: type(make()).__name__)
def test_goes_on_where_it_was(make: Any, tmp_path: Path, fit: Any, times_rates: Any) -> None:
    first = save(fit, tmp_path / "c.ckpt", make())
    second = fit(make(), ckpt_path=tmp_path / "c.ckpt", max_epochs=3)
    expected = make().simulate(30, epoch_steps=10)
    assert first.rates + second.rates == times_rates(expected)


@pytest.mark.parametrize(
    "make", [CosineLR, LinearLR, OneCycleLR, lambda: WarmupStableDecayLR("10%")]
)
def test_a_longer_run_is_told_and_takes_the_longer_curve(
    make: Any, tmp_path: Path, fit: Any, times_rates: Any
) -> None:
    save(fit, tmp_path / "c.ckpt", make())
    with pytest.warns(UserWarning, match="had 10 steps .* and has 20 now"):
        run = fit(make(), ckpt_path=tmp_path / "c.ckpt", max_epochs=2)
    assert run.rates == times_rates(make().simulate(20)[10:])


@pytest.mark.filterwarnings("error:.*the run had")
def test_the_same_length_is_not_told(tmp_path: Path, fit: Any, times_rates: Any) -> None:
    class Stopped(Exception):  # noqa: N818
        pass

    class Stop(Other):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.save_checkpoint(tmp_path / "c.ckpt")
            raise Stopped

    with pytest.raises(Stopped):
        fit(CosineLR(), Stop(), max_epochs=3)
    run = fit(CosineLR(), Other(), ckpt_path=tmp_path / "c.ckpt", max_epochs=3)
    assert run.rates[0] == times_rates(CosineLR().simulate(30)[10:])[0]


def test_the_state_is_plain(tmp_path: Path, fit: Any) -> None:
    save(fit, tmp_path / "c.ckpt", CosineLR(floor=0.1, warmup="20%"))
    checkpoint = torch.load(tmp_path / "c.ckpt", weights_only=True)
    state = checkpoint["callbacks"]["CosineLR(floor=0.1, warmup='20%')"]
    assert state["arguments"] == {
        "floor": 0.1,
        "warmup": "20%",
        "warmup_start": 0.0,
        "replace": False,
    }
    assert state["total_steps"] == 10
    assert checkpoint["lr_schedulers"] == [{"factor_lr_step": 10, "base_lrs": [0.005, 0.0002]}]


REFUSED: list[tuple[list[Schedule], Schedule, str]] = [
    ([LinearLR()], CosineLR(), r"saved with LinearLR\(\), but this run has CosineLR\(\)"),
    ([CosineLR(0.1)], CosineLR(), r"saved with CosineLR\(floor=0.1\), but .* CosineLR\(\)"),
    ([StepLR(5)], StepLR("5ep"), r"saved with StepLR\(every=5\), but .* StepLR\(every='5ep'\)"),
    ([], CosineLR(), r"saved with no schedule of this package, but .* CosineLR\(\)"),
]


@pytest.mark.parametrize(("before", "now", "message"), REFUSED, ids=str)
def test_another_schedule_or_none_is_refused(
    before: list[Schedule], now: Schedule, message: str, tmp_path: Path, fit: Any
) -> None:
    save(fit, tmp_path / "c.ckpt", *before)
    with pytest.raises(CheckpointError, match=message + ".*replace=True"):
        fit(now, ckpt_path=tmp_path / "c.ckpt")


def test_a_run_that_lacks_the_schedule(tmp_path: Path, fit: Any) -> None:
    save(fit, tmp_path / "c.ckpt", CosineLR(floor=0.1))
    with pytest.raises(CheckpointError, match=r"CosineLR\(floor=0.1\), which this run lacks"):
        fit(Other(), ckpt_path=tmp_path / "c.ckpt")
    with pytest.warns(UserWarning, match=r"callbacks.*\['CosineLR\(floor=0.1\)'\]"):
        fit(ckpt_path=tmp_path / "c.ckpt")  # nothing of this package is there to ask


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@pytest.mark.parametrize("before", [None, LinearLR(), CosineLR(0.3)], ids=repr)
def test_replace_catches_up(
    before: Schedule | None, tmp_path: Path, fit: Any, times_rates: Any
) -> None:
    save(fit, tmp_path / "c.ckpt", *([before] if before else []))
    run = fit(CosineLR(replace=True), ckpt_path=tmp_path / "c.ckpt")
    assert run.rates == times_rates(CosineLR().simulate(20)[10:])


@pytest.mark.parametrize(
    "theirs",
    [
        lambda o: lr_scheduler.ExponentialLR(o, 0.5),
        lambda o: {"scheduler": lr_scheduler.CosineAnnealingLR(o, 10), "interval": "step"},
    ],
)
def test_replace_takes_over_a_checkpoint_of_torchs_scheduler(
    theirs: Any, tmp_path: Path, tiny: Any, fit: Any, times_rates: Any
) -> None:
    save(fit, tmp_path / "c.ckpt", module=tiny(scheduler=theirs))
    for module in (tiny(scheduler=theirs), tiny()):
        run = fit(LinearLR(replace=True), module=module, ckpt_path=tmp_path / "c.ckpt")
        assert run.rates == times_rates([1 - step / 20 for step in range(10, 20)])


def test_resume_of_what_was_replaced_needs_no_flag(
    tmp_path: Path, fit: Any, times_rates: Any
) -> None:
    save(fit, tmp_path / "c.ckpt", StepLR(6, 0.5, replace=True))
    run = fit(StepLR(6, 0.5), ckpt_path=tmp_path / "c.ckpt")
    assert run.rates == times_rates([0.5 ** (step // 6) for step in range(10, 20)])


@pytest.mark.parametrize("before", [[], [LinearLR()]], ids=str)
def test_testing_and_validating_with_a_checkpoint_never_ask(
    before: list[Schedule], tmp_path: Path, tiny: Any, fit: Any
) -> None:
    run = save(fit, tmp_path / "c.ckpt", *before, limit_val_batches=1)
    trainer = fit(CosineLR(), max_epochs=1, limit_val_batches=1).trainer
    module = tiny()
    trainer.validate(module, ckpt_path=tmp_path / "c.ckpt", verbose=False)
    assert torch.equal(module.first.weight, run.module.first.weight)


def test_rates_as_tensors_resume(tmp_path: Path, tiny: Any, fit: Any) -> None:
    def module() -> Any:
        return tiny(rates=[torch.tensor(0.005), torch.tensor(0.0002)])

    first = save(fit, tmp_path / "c.ckpt", StepLR(6, 0.5), module=module())
    second = fit(StepLR(6, 0.5), module=module(), ckpt_path=tmp_path / "c.ckpt")
    torch.load(tmp_path / "c.ckpt", weights_only=True)
    expected = [[r * 0.5 ** (step // 6) for r in (0.005, 0.0002)] for step in range(20)]
    got = first.rates + second.rates
    assert got == [pytest.approx(row, rel=1e-6) for row in expected]  # float32 rates


@pytest.mark.parametrize("step", [1, 3, 5, 7])
def test_resume_in_the_middle_of_an_epoch_with_accumulation(
    step: int, tmp_path: Path, fit: Any, times_rates: Any
) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == step and not (tmp_path / "c.ckpt").exists():
                trainer.save_checkpoint(tmp_path / "c.ckpt")

    arguments = {"accumulate_grad_batches": 3, "max_epochs": 2}  # 4 steps an epoch
    whole = fit(LinearLR(), Save(), **arguments)
    run = fit(LinearLR(), ckpt_path=tmp_path / "c.ckpt", **arguments)
    assert whole.rates == times_rates([1 - step / 8 for step in range(8)])
    assert run.rates == whole.rates[step:]
