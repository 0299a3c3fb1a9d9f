import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lightning_dlopt.core import ArgumentTypeError, CheckpointError, ConflictError
from lightning_dlopt.schedules import (
    CosineLR,
    LinearLR,
    PlateauLR,
    Schedule,
    ScheduleMixin,
    StepLR,
)
from tests.quiet import QUIET


@pytest.fixture(name="scheduled")
def _scheduled(tiny: Any) -> Any:
    """Return the tiny module's class with a ``schedule`` argument, picklable by its name."""
    made = type("ScheduledModule", (ScheduleMixin, tiny), {"__module__": __name__})
    globals()["ScheduledModule"] = made
    return made


def test_the_rates_are_the_schedules(scheduled: Any, fit: Any, times_rates: Any) -> None:
    run = fit(module=scheduled(schedule=LinearLR()))
    assert run.rates == times_rates([1 - step / 20 for step in range(20)])


def test_without_a_schedule_nothing_changes(scheduled: Any, fit: Any, times_rates: Any) -> None:
    assert fit(module=scheduled()).rates == times_rates([1.0] * 20)


def test_as_callback_and_as_mixin_bitwise_alike(scheduled: Any, tiny: Any, fit: Any) -> None:
    mixed, plain = scheduled(schedule=CosineLR(warmup=3)), tiny()
    plain.load_state_dict(mixed.state_dict())
    fit(module=mixed)
    fit(CosineLR(warmup=3), module=plain)
    for ours, theirs in zip(mixed.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_checkpoints_are_exchanged_between_both_forms(
    tmp_path: Path, scheduled: Any, fit: Any, times_rates: Any
) -> None:
    path = tmp_path / "c.ckpt"
    fit(module=scheduled(schedule=StepLR(6)), max_epochs=1).trainer.save_checkpoint(path)
    run = fit(StepLR(6), ckpt_path=path)
    assert run.rates == times_rates([0.1 ** (step // 6) for step in range(10, 20)])
    with pytest.raises(CheckpointError, match=r"StepLR\(every=6\).*StepLR\(every=7\)"):
        fit(module=scheduled(schedule=StepLR(7)), ckpt_path=path)


def test_the_base_class_keeps_its_callbacks(tiny: Any, fit: Any) -> None:
    called = []

    class Note(Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            called.append(trainer)

    class Base(tiny):
        def configure_callbacks(self) -> Any:
            return Note()

    class Both(ScheduleMixin, Base):
        pass

    run = fit(module=Both(schedule=CosineLR()))
    assert called == [run.trainer]


def test_a_schedule_in_both_places_is_a_conflict(scheduled: Any, fit: Any) -> None:
    with pytest.raises(ConflictError, match=r"brings CosineLR\(\), .* has CosineLR\(floor=0.5\)"):
        fit(CosineLR(0.5), module=scheduled(schedule=CosineLR()))
    with pytest.raises(ConflictError, match=r"LinearLR\(\) and CosineLR\(\)|CosineLR\(\) and Lin"):
        fit(LinearLR(), module=scheduled(schedule=CosineLR()))


def test_something_else_than_a_schedule_is_refused(scheduled: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"ScheduledModule: schedule='cosine' must be"):
        scheduled(schedule="cosine")


@pytest.mark.parametrize("schedule", [CosineLR(), PlateauLR("train_loss")], ids=repr)
def test_copies_and_pickles_after_training(schedule: Any, scheduled: Any, fit: Any) -> None:
    module = fit(module=scheduled(schedule=schedule)).module
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(twin.schedule) == repr(schedule)
        assert torch.equal(twin.first.weight, module.first.weight)
        assert fit(module=twin, max_epochs=1).rates
    torch.save(module, io.BytesIO())


def test_pickles_after_an_exception(scheduled: Any, fit: Any) -> None:
    class Fails(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            raise ZeroDivisionError

    module = scheduled(schedule=CosineLR())
    with pytest.raises(ZeroDivisionError):
        fit(Fails(), module=module)
    pickle.dumps(module)


def test_a_trainer_goes_from_one_module_with_a_schedule_to_another(scheduled: Any) -> None:
    trainer = Trainer(
        **QUIET,
        max_epochs=1,
        limit_val_batches=0,
    )
    first, second = CosineLR(), StepLR(every=1, gamma=0.5)
    for schedule in (first, second):
        trainer.fit(scheduled(schedule=schedule))
    assert [c for c in trainer.callbacks if isinstance(c, Schedule)] == [second]


class CopiesInMidTraining(Callback):
    """Takes a copy of the module while it is trained, as averaging and teachers do."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *arguments: Any) -> None:
        if trainer.global_step == 3:
            self.copies = [copy.deepcopy(pl_module), pickle.loads(pickle.dumps(pl_module))]


@pytest.mark.parametrize("make", [LinearLR, lambda: PlateauLR("train_loss")])
def test_a_copy_in_mid_training_is_whole_and_free(
    make: Any, scheduled: Any, fit: Any, times_rates: Any
) -> None:
    copies = CopiesInMidTraining()
    run = fit(copies, module=scheduled(schedule=make()))
    assert len(run.rates) == 20
    for twin in copies.copies:
        assert not twin.schedule._schedulers
        assert "on_train_epoch_end" not in vars(twin) or not hasattr(
            twin.on_train_epoch_end, "undo"
        )
        again = fit(module=twin)
        if isinstance(twin.schedule, LinearLR):
            assert again.rates == times_rates([1 - step / 20 for step in range(20)])
