from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_dlopt.core import ArgumentError, NoEffectWarning, TechniqueError
from lightning_dlopt.schedules import PlateauLR

METRIC = [1.0, 0.9, 0.95, 0.91, 0.9, 0.8, 0.8, 0.8, 0.8, 0.7, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]


def torchs(metric: Sequence[float], **arguments: Any) -> list[float]:
    """Return the factor in force before each look, and after the last."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, eps=0.0, **arguments)
    factors = [1.0]
    for value in metric:
        scheduler.step(float(torch.tensor(value)))  # Lightning keeps float32
        factors.append(optimizer.param_groups[0]["lr"])
    return factors


def module_logging(tiny: Any, where: str, batches: int = 2) -> Any:
    """Return a module that logs the sequence METRIC as ``m``, one value at each look."""

    class Logging(tiny):
        looks = 0

        def log_next(self) -> None:
            self.log("m", torch.tensor(METRIC[self.looks]))
            self.looks += 1

    def on_epoch_end(self: Any) -> None:
        if not self.trainer.sanity_checking:
            self.log_next()
        else:
            self.log("m", 0.0)

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log("m", torch.tensor(METRIC[self.current_epoch]), on_step=False, on_epoch=True)
        return self.loss(batch)

    if where == "training_step":
        Logging.training_step = training_step
    else:
        setattr(Logging, where, on_epoch_end)
    return Logging(batches)


def each(factors: Sequence[float], steps: int) -> list[float]:
    return [factor for factor in factors for _ in range(steps)]


SETTINGS: list[dict[str, Any]] = [
    {"factor": 0.5, "patience": 1},
    {"factor": 0.1, "patience": 0, "min_lr": 0.05},
    {"factor": 0.3, "patience": 2, "mode": "max"},
    {"factor": 0.5, "patience": 1, "threshold": 0.2},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("where", ["on_validation_epoch_end", "training_step"])
def test_decides_as_torch_does(
    setting: dict[str, Any], where: str, tiny: Any, fit: Any, times_rates: Any
) -> None:
    ours = {{"min_lr": "floor"}.get(name, name): value for name, value in setting.items()}
    run = fit(
        PlateauLR("m", **ours),
        module=module_logging(tiny, where),
        max_epochs=16,
        limit_val_batches=1,
        num_sanity_val_steps=1,  # its value of 0 would be the best one ever
    )
    expected = torchs(METRIC, **setting)[:16]
    assert min(expected) < 1
    assert run.rates == times_rates(each(expected, 2))


def test_sees_what_the_module_logs_at_the_epochs_end(tiny: Any, fit: Any, times_rates: Any) -> None:
    module = module_logging(tiny, "on_train_epoch_end")
    run = fit(PlateauLR("m", 0.5, 1), module=module, max_epochs=16)
    assert run.rates == times_rates(each(torchs(METRIC, factor=0.5, patience=1)[:16], 2))
    assert "on_train_epoch_end" not in vars(module)


def test_validation_every_second_epoch(tiny: Any, fit: Any, times_rates: Any) -> None:
    module = module_logging(tiny, "on_validation_epoch_end")
    run = fit(
        PlateauLR("m", 0.5, 1),
        module=module,
        max_epochs=32,
        limit_val_batches=1,
        check_val_every_n_epoch=2,
    )
    assert module.looks == 16
    assert run.rates == times_rates(each(torchs(METRIC, factor=0.5, patience=1)[:16], 4))


def test_several_validations_an_epoch(tiny: Any, fit: Any, times_rates: Any) -> None:
    module = module_logging(tiny, "on_validation_epoch_end", batches=8)
    run = fit(
        PlateauLR("m", 0.5, 1),
        module=module,
        max_epochs=4,
        limit_val_batches=1,
        val_check_interval=0.25,
    )
    assert module.looks == 16
    assert run.rates == times_rates(each(torchs(METRIC, factor=0.5, patience=1)[:16], 2))


def test_validation_that_is_rarer_than_epochs(tiny: Any, fit: Any, times_rates: Any) -> None:
    module = module_logging(tiny, "on_validation_epoch_end", batches=2)
    run = fit(
        PlateauLR("m", 0.5, 0),
        module=module,
        max_epochs=12,
        limit_val_batches=1,
        val_check_interval=6,
        check_val_every_n_epoch=None,
    )
    assert run.rates == times_rates(each(torchs(METRIC, factor=0.5, patience=0)[:4], 6))


def test_a_training_metric_is_not_looked_at_twice_where_there_is_validation(
    tiny: Any, fit: Any, times_rates: Any
) -> None:
    run = fit(
        PlateauLR("m", 0.5, 1),
        module=module_logging(tiny, "training_step"),
        max_epochs=16,
        limit_val_batches=1,
        val_check_interval=0.5,
    )
    assert run.rates == times_rates(each(torchs(METRIC, factor=0.5, patience=1)[:16], 2))


def test_missing_metric_lists_the_names(tiny: Any, fit: Any) -> None:
    names = "no metric named 'accuracy'.*there are: train_loss, val_loss"
    with pytest.raises(TechniqueError, match=names):
        fit(PlateauLR("accuracy"), limit_val_batches=1)
    with pytest.raises(TechniqueError, match=r"'val_loss'.*there are: train_loss"):
        fit(PlateauLR("val_loss"))  # without validation
    with pytest.raises(TechniqueError, match=r"'x'.*there are: train_loss, val_loss"):
        fit(PlateauLR("x"), limit_val_batches=1, check_val_every_n_epoch=2)


def test_a_run_that_is_over_before_its_first_look_says_so(fit: Any) -> None:
    with pytest.warns(NoEffectWarning, match="no metric named 'val_loss' was logged"):
        fit(PlateauLR("val_loss"), limit_val_batches=1, check_val_every_n_epoch=5)


def test_warm_up_goes_first(tiny: Any, fit: Any, times_rates: Any) -> None:
    module = module_logging(tiny, "training_step")
    run = fit(PlateauLR("m", 0.5, 1, warmup=4), module=module, max_epochs=16)
    expected = each(torchs(METRIC, factor=0.5, patience=1)[:16], 2)
    assert run.rates == times_rates([0.25, 0.5, 0.75, 1.0, *expected[4:]])


@pytest.mark.parametrize("where", ["on_validation_epoch_end", "training_step"])
@pytest.mark.parametrize("stop", [1, 3, 7, 8])
def test_resume_goes_on_counting(
    where: str, stop: int, tmp_path: Any, tiny: Any, fit: Any, times_rates: Any
) -> None:
    arguments: dict[str, Any] = {"limit_val_batches": 1, "max_epochs": stop}
    module = module_logging(tiny, where)
    first = fit(PlateauLR("m", 0.5, 1), module=module, **arguments)
    first.trainer.save_checkpoint(tmp_path / "c.ckpt")
    arguments["max_epochs"] = 16
    second = fit(PlateauLR("m", 0.5, 1), module=module, ckpt_path=tmp_path / "c.ckpt", **arguments)
    expected = each(torchs(METRIC, factor=0.5, patience=1)[:16], 2)
    assert first.rates + second.rates == times_rates(expected)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"factor": 1.0}, r"PlateauLR: factor=1.0 is not in \(0, 1\)"),
    ({"patience": -1}, r"PlateauLR: patience=-1 is not in \[0, inf\)"),
    ({"mode": "best"}, "PlateauLR: mode='best' must be one of 'min', 'max'"),
    ({"threshold": -0.1}, r"PlateauLR: threshold=-0.1 is not in \[0, inf\)"),
    ({"floor": 1}, r"PlateauLR: floor=1 is not in \[0, 1\)"),
    ({"monitor": ""}, "PlateauLR: monitor must not be empty"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    make: Callable[..., PlateauLR] = PlateauLR
    with pytest.raises(ArgumentError, match=message):
        make(**{"monitor": "m", **arguments})
