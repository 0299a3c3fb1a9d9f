"""What all schedules share: arguments, optimizers, the rate they start from, warnings."""

import csv
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from torch.optim import SGD, Adam, Optimizer

from lightning_dlopt.core import (
    ArgumentError,
    ArgumentTypeError,
    NoEffectWarning,
    TechniqueError,
    UserError,
)
from lightning_dlopt.schedules import (
    ConstantLR,
    CosineLR,
    CosineRestartsLR,
    CyclicLR,
    ExponentialDecayLR,
    ExponentialGrowthLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PiecewiseLR,
    PlateauLR,
    PolynomialLR,
    Schedule,
    StepLR,
    WarmupStableDecayLR,
)

Make = Callable[..., Schedule]

BAD: list[tuple[Make, dict[str, Any], str]] = [
    (CosineLR, {"floor": 1.5}, r"CosineLR: floor=1.5 is not in \[0, 1\]"),
    (CosineLR, {"floor": math.nan}, r"CosineLR: floor=nan is not in \[0, 1\]"),
    (CosineLR, {"floor": "0"}, r"CosineLR: floor='0' must be a number in \[0, 1\]"),
    (CosineLR, {"warmup": -1}, "CosineLR: warmup=-1 is no span of training; allowed are"),
    (CosineLR, {"warmup": "120%"}, "CosineLR: warmup='120%' is no span"),
    (CosineLR, {"warmup": 0.1}, "CosineLR: warmup=0.1 is no span"),
    (CosineLR, {"warmup_start": 2}, r"CosineLR: warmup_start=2 is not in \[0, 1\]"),
    (CosineLR, {"replace": 1}, "CosineLR: replace=1 must be True or False"),
    (ConstantLR, {"warmup_start": -0.1}, r"ConstantLR: warmup_start=-0.1 is not in \[0, 1\]"),
    (ExponentialDecayLR, {"gamma": 1.0}, r"DecayLR: gamma=1.0 is not in \(0, 1\)"),
    (ExponentialDecayLR, {"gamma": 0.5, "every": 0}, "DecayLR: every=0 must be longer"),
    (ExponentialDecayLR, {"gamma": 0.5, "staircase": "no"}, "DecayLR: staircase='no' must be"),
    (ExponentialDecayLR, {"gamma": 0.5, "floor": -1}, r"DecayLR: floor=-1 is not in \[0, 1\]"),
    (ExponentialGrowthLR, {"gamma": 1}, r"GrowthLR: gamma=1 is not in \(1, inf\)"),
    (ExponentialGrowthLR, {"gamma": 2, "ceiling": 0.5}, r"GrowthLR: ceiling=0.5 is not in \[1,"),
    (StepLR, {"every": "0ep"}, "StepLR: every='0ep' must be longer than nothing"),
    (StepLR, {"every": 5, "gamma": 0}, r"StepLR: gamma=0 is not in \(0, inf\)"),
    (MultiStepLR, {"milestones": []}, "MultiStepLR: milestones must hold at least one"),
    (MultiStepLR, {"milestones": "5ep"}, "MultiStepLR: milestones='5ep' must be a list"),
    (MultiStepLR, {"milestones": [5, 5]}, r"MultiStepLR: milestones=\[5, 5\] must be increas"),
    (MultiStepLR, {"milestones": [5, "x"]}, "MultiStepLR: milestones='x' is no span"),
    (MultiStepLR, {"milestones": [5], "gamma": -1}, r"gamma=-1 is not in \(0, inf\)"),
    (PiecewiseLR, {"milestones": [5], "factors": [1, 2]}, r"factors=\[1.0, 2.0\].*\[5\]"),
    (PiecewiseLR, {"milestones": [5], "factors": [-1]}, r"PiecewiseLR: factors=-1 is not in"),
    (
        PiecewiseLR,
        {"milestones": [5], "factors": [1], "interpolate": "spline"},
        "PiecewiseLR: interpolate='spline' must be one of 'none', 'linear', 'cosine'",
    ),
    (LinearLR, {"end": -0.1}, r"LinearLR: end=-0.1 is not in \[0, inf\)"),
    (PolynomialLR, {"power": 0}, r"PolynomialLR: power=0 is not in \(0, inf\)"),
    (PolynomialLR, {"power": 1, "end": -1}, r"PolynomialLR: end=-1 is not in \[0, inf\)"),
    (CosineRestartsLR, {"period": "0%"}, "CosineRestartsLR: period='0%' must be longer"),
    (CosineRestartsLR, {"period": 5, "multiplier": 0.5}, r"multiplier=0.5 is not in \[1, inf\)"),
    (OneCycleLR, {"rise": "x"}, "OneCycleLR: rise='x' is no span"),
    (OneCycleLR, {"start": 1.1}, r"OneCycleLR: start=1.1 is not in \[0, 1\]"),
    (OneCycleLR, {"end": -1}, r"OneCycleLR: end=-1 is not in \[0, 1\]"),
    (WarmupStableDecayLR, {"warmup": 0, "decay": 0}, "WarmupStableDecayLR: decay=0 must be"),
    (WarmupStableDecayLR, {"warmup": 0, "floor": 2}, r"WarmupStableDecayLR: floor=2 is not"),
    (CyclicLR, {"period": 0, "low": 0, "high": 1}, "CyclicLR: period=0 must be longer"),
    (CyclicLR, {"period": 4, "low": 1, "high": 0.5}, "CyclicLR: high=0.5 must be at least low=1"),
    (CyclicLR, {"period": 4, "low": -1, "high": 1}, r"CyclicLR: low=-1 is not in \[0, inf\)"),
]


@pytest.mark.parametrize(("make", "arguments", "message"), BAD)
def test_bad_arguments(make: Make, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ArgumentError, ArgumentTypeError), match=message) as caught:
        make(**arguments)
    assert isinstance(caught.value, UserError)


def test_a_rate_as_tensor_is_changed_in_place(tiny: Any, fit: Any, times_rates: Any) -> None:
    shared = torch.tensor(0.004, dtype=torch.float64)

    class Module(tiny):
        def configure_optimizers(self) -> Any:
            groups = [{"params": m.parameters()} for m in (self.first, self.second)]
            return Adam(groups, lr=shared)

    run = fit(LinearLR(), module=Module())
    assert run.rates == [pytest.approx([0.004 * (1 - s / 20)] * 2, rel=1e-12) for s in range(20)]
    assert all(isinstance(g["lr"], torch.Tensor) for g in run.trainer.optimizers[0].param_groups)
    assert float(shared) == 0.004  # the module's own tensor is not touched


class Rateless(Optimizer):
    """An optimizer without a learning rate."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        return closure()


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. returned .None.")
@pytest.mark.parametrize(
    ("optimizer", "message"),
    [(lambda _: None, "TinyModule|Module has no optimizer"), (Rateless, "no learning rate")],
)
def test_nothing_to_schedule_is_refused(optimizer: Any, message: str, tiny: Any, fit: Any) -> None:
    class Module(tiny):
        def configure_optimizers(self) -> Any:
            return optimizer(self.parameters())

    with pytest.raises(TechniqueError, match=message):
        fit(CosineLR(), module=Module())


@pytest.mark.parametrize("finder_first", [True, False])
def test_what_a_learning_rate_finder_suggests_is_multiplied(
    finder_first: bool, tmp_path: Path, tiny: Any, fit: Any
) -> None:
    class Module(tiny):
        learning_rate = 0.005

    finder = LearningRateFinder(min_lr=1e-5, max_lr=0.1, num_training_steps=60)
    callbacks = [finder, LinearLR(warmup=4)][:: 1 if finder_first else -1]
    module = Module(100)
    run = fit(*callbacks, module=module, max_epochs=1, default_root_dir=tmp_path)
    suggested = module.learning_rate
    assert suggested == finder.optimal_lr.suggestion() != 0.005
    factors = [0.25, 0.5, 0.75, 1.0] + [1 - step / 96 for step in range(96)]
    assert run.rates[-100:] == [pytest.approx([f * suggested] * 2, rel=1e-12) for f in factors]


def test_the_monitor_logs_the_rates(tmp_path: Path, fit: Any, close: Any) -> None:
    logger = CSVLogger(tmp_path)
    fit(LinearLR(), LearningRateMonitor("step"), logger=logger, log_every_n_steps=1)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for group, rate in (("pg1", 0.005), ("pg2", 0.0002)):
        logged = [float(row[f"lr-SGD/{group}"]) for row in rows if row[f"lr-SGD/{group}"]]
        assert logged == close([rate * (1 - step / 20) for step in range(20)])


NOTHING: list[Schedule] = [CosineLR(1.0), LinearLR(1.0), MultiStepLR([5], 1.0), StepLR(5, 1.0)]


@pytest.mark.parametrize("schedule", NOTHING, ids=repr)
def test_a_curve_of_ones_is_told(schedule: Schedule, fit: Any) -> None:
    with pytest.warns(NoEffectWarning, match="the rate stays the same over all 20 steps"):
        fit(schedule)


def test_rates_of_nought_are_told(tiny: Any, fit: Any) -> None:
    with pytest.warns(NoEffectWarning, match="every initial rate is 0"):
        fit(CosineLR(), module=tiny(rates=(0.0, 0.0)))


WITH_EFFECT: list[Schedule] = [
    ConstantLR(),
    ConstantLR(warmup=3),
    CosineLR(),
    CosineLR(1.0, warmup=3),
    LinearLR(),
    PolynomialLR(2.0),
    OneCycleLR(),
    WarmupStableDecayLR("10%"),
    MultiStepLR([19]),
    StepLR("1ep"),
    PiecewiseLR([7, 8], [2.0, 1.0]),
    ExponentialDecayLR(0.5),
    ExponentialGrowthLR(1.1),
    CosineRestartsLR(5),
    CyclicLR(4, 1.0, 2.0),
    PlateauLR("train_loss"),
]


@pytest.mark.parametrize("schedule", WITH_EFFECT, ids=repr)
def test_no_false_alarm(schedule: Schedule, fit: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        fit(schedule)


@pytest.mark.parametrize(
    "schedule", [CosineRestartsLR(2), PiecewiseLR([4098, 4099], [0.5, 1.0])], ids=repr
)
def test_no_false_alarm_in_long_runs(schedule: Schedule, tiny: Any, fit: Any) -> None:
    """A change that falls between the steps looked at first is found, too."""

    class Stop(tiny):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.trainer.should_stop = True
            return self.loss(batch)

    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        fit(schedule, module=Stop(8193), max_epochs=1)


def test_a_shared_schedule_sees_each_optimizers_own_groups() -> None:
    # the pure side, in anybody's own loop
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = CosineLR(warmup=1)
    lambdas = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.simulate(3).__getitem__)
    assert lambdas.get_last_lr() == [2.0]


def test_a_modules_own_way_of_stepping_may_name_the_epoch(
    tiny: Any, fit: Any, times_rates: Any
) -> None:
    class Module(tiny):
        def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
            scheduler.step(epoch=self.current_epoch)

    run = fit(LinearLR(), module=Module())
    assert run.rates == times_rates([1 - step / 20 for step in range(20)])


def test_the_rate_counts_and_not_an_older_note_of_it(tiny: Any, fit: Any, times_rates: Any) -> None:
    class Module(tiny):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            for group in optimizer.param_groups:
                group["initial_lr"] = 9.0  # as a scheduler that is gone has left it
            return optimizer

    assert fit(ConstantLR(), module=Module()).rates == times_rates([1.0] * 20)
