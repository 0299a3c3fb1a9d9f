import copy
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_dlopt.core import (
    CheckpointError,
    ConflictError,
    NoEffectWarning,
    Technique,
    TechniqueError,
)
from lightning_dlopt.core.mixin import TechniqueMixin
from lightning_dlopt.core.plain import plain
from tests.quiet import QUIET


class Halve(Technique):
    """Halves the loss of training."""

    exclusive: ClassVar[str | None] = "loss halver"
    required_on_resume: ClassVar[bool] = True
    not_identity: ClassVar[frozenset[str]] = frozenset({"quiet"})

    def __init__(self, times: int = 1, names: Any = ("a",), quiet: bool = False) -> None:
        self.times = times
        self.names = names
        self.quiet = quiet

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *args: original(*args)["loss"] / 2**self.times

        self.patch(pl_module, "training_step", wrap)


class Quarter(Halve):
    """Another of the same exclusive kind."""


class Draw(Technique):
    """Draws a number at each batch."""

    def __init__(self, amount: int = 1, same: bool = False, disturb: bool = False) -> None:
        self.amount = amount
        self.same = same
        self.disturb = disturb
        self.drawn: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        generator = self.generator(trainer, same_on_all_ranks=self.same)
        self.drawn.append(float(torch.rand(1, generator=generator, dtype=torch.float64)))
        if self.disturb:
            torch.rand(3)


class Fail(Callback):
    """Raises in the middle of training."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            raise ZeroDivisionError


def trainer_with(*callbacks: Callback, **arguments: Any) -> Trainer:
    return Trainer(
        callbacks=list(callbacks),
        limit_val_batches=0,
        limit_train_batches=4,
        **{**QUIET, "max_epochs": 1, **arguments},
    )


def test_arguments_text_and_key() -> None:
    halve = Halve(2, names=("b", "c"), quiet=True)
    assert halve.arguments() == {"times": 2, "names": ["b", "c"], "quiet": True}
    assert repr(halve) == halve.state_key == "Halve(times=2, names=['b', 'c'])"
    assert repr(Halve()) == "Halve()"
    assert Halve(1).state_key != Halve(2).state_key


def test_state_is_plain_and_loads_weights_only(tmp_path: Path) -> None:
    halve = Halve(3)
    trainer = trainer_with(halve)
    trainer.fit(BoringModel())
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    state = torch.load(tmp_path / "c.ckpt", weights_only=True)["callbacks"]["Halve(times=3)"]
    assert state == {
        "technique": "Halve(times=3)",
        "exclusive": "loss halver",
        "required": True,
        "arguments": {"times": 3, "names": ["a"], "quiet": False},
    }


def test_plain() -> None:
    value = {"f": partial(torch.optim.SGD, lr=0.1), 1: {2, 1}, "m": torch.nn.ReLU(), "n": None}
    assert plain(value) == {
        "f": {"call": "torch.optim.sgd.SGD", "args": [], "lr": 0.1},
        "1": [1, 2],
        "m": "torch.nn.modules.activation.ReLU",
        "n": None,
    }


@pytest.mark.parametrize("fails", [False, True])
def test_undone_after_fit_and_after_an_exception(fails: bool) -> None:
    module = BoringModel()
    own = dict(vars(module))
    halve = Halve()
    for _ in range(2):
        trainer = trainer_with(halve, *([Fail()] if fails else []))
        if fails:
            with pytest.raises(ZeroDivisionError):
                trainer.fit(module)
        else:
            trainer.fit(module)
        assert "training_step" not in vars(module)
        assert module.training_step.__func__ is BoringModel.training_step
        assert set(vars(module)) - set(own) <= {"_hparams"}  # Lightning's own
    copy.deepcopy(module)


def test_only_training_is_touched() -> None:
    module, halve = BoringModel(), Halve()
    trainer_with(halve).validate(module, verbose=False)
    trainer_with(halve).test(module, verbose=False)
    assert "training_step" not in vars(module)


def test_it_does_its_work_in_training() -> None:
    torch.manual_seed(0)
    one, two = BoringModel(), BoringModel()
    two.load_state_dict(one.state_dict())
    seed_everything(1, verbose=False)
    trainer_with(Halve(2), max_steps=1).fit(one)
    start = copy.deepcopy(two.layer.weight.detach())
    seed_everything(1, verbose=False)
    trainer_with(max_steps=1).fit(two)
    # one step of SGD, linear in the loss; float32
    moved = one.layer.weight - start
    assert torch.allclose(4 * moved, two.layer.weight - start, rtol=1e-5, atol=1e-7)
    assert float(moved.abs().max()) > 1e-4


@pytest.mark.parametrize("reverse", [False, True])
def test_two_of_an_exclusive_kind(reverse: bool) -> None:
    pair: list[Callback] = [Halve(), Quarter(times=2)]
    trainer = trainer_with(*pair[:: -1 if reverse else 1])
    with pytest.raises(ConflictError) as caught:
        trainer.fit(BoringModel())
    for name in ("Halve()", "Quarter(times=2)", "loss halver"):
        assert name in str(caught.value)


def test_two_that_do_not_exclude_each_other() -> None:
    first, second = Draw(1), Draw(2)
    trainer_with(first, second).fit(BoringModel())
    assert len(first.drawn) == len(second.drawn) == 4
    assert not set(first.drawn) & set(second.drawn)


class Ranked(Callback):
    """Makes a single process look like one of several."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        type(trainer.strategy).global_rank = property(lambda _: self.rank)  # type: ignore[assignment,method-assign]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del type(trainer.strategy).global_rank


def draws(seed: int = 0, rank: int = 0, **arguments: Any) -> list[float]:
    seed_everything(seed, verbose=False)
    draw = Draw(**arguments)
    trainer_with(draw, Ranked(rank), max_epochs=2).fit(BoringModel())
    return draw.drawn


def test_draws_are_keyed_by_seed_rank_batch_and_technique() -> None:
    base = draws()
    assert len(set(base)) == 8  # another at every batch
    assert draws() == base
    assert draws(disturb=True) != base  # another argument, another technique
    for other in (draws(seed=1), draws(rank=1), draws(amount=2)):
        assert not set(other) & set(base)
    assert draws(same=True) == draws(same=True, rank=1)


def test_draws_do_not_depend_on_the_global_generator() -> None:
    seed_everything(3, verbose=False)
    one, two = Draw(), Draw()
    trainer_with(one).fit(BoringModel())
    torch.rand(17)
    trainer_with(two).fit(BoringModel())
    assert one.drawn == two.drawn


def test_a_key_tells_draws_within_a_batch_apart() -> None:
    technique, trainer = Draw(), Trainer(**QUIET)
    keys: list[tuple[int, ...]] = [(), (0,), (1,), (0, 1), (1, 0)]
    seeds = [technique.generator(trainer, key=key).initial_seed() for key in keys]
    assert len(set(seeds)) == len(keys)
    assert seeds[0] == technique.generator(trainer).initial_seed()


def test_no_global_generator_is_touched() -> None:
    def state_after(*callbacks: Callback) -> list[Any]:
        seed_everything(5, verbose=False)
        trainer_with(*callbacks).fit(BoringModel())
        return [torch.rand(2).tolist(), random.random(), float(np.random.rand())]  # noqa: NPY002

    assert state_after(Draw()) == state_after()


def test_draws_resume(tmp_path: Path) -> None:
    whole = draws()
    seed_everything(0, verbose=False)
    first, second = Draw(), Draw()
    trainer = trainer_with(first, max_epochs=1)
    trainer.fit(BoringModel())
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    trainer_with(second, max_epochs=2).fit(BoringModel(), ckpt_path=tmp_path / "c.ckpt")
    assert first.drawn + second.drawn == whole


def test_resume_without_a_required_technique(tmp_path: Path) -> None:
    trainer = trainer_with(Halve(2))
    trainer.fit(BoringModel())
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    with pytest.raises(CheckpointError, match=r"Halve\(times=2\), which this run lacks"):
        trainer_with(Draw()).fit(BoringModel(), ckpt_path=tmp_path / "c.ckpt")
    trainer_with(Halve(2), Draw(), max_epochs=2).fit(BoringModel(), ckpt_path=tmp_path / "c.ckpt")


def test_messages_name_the_technique() -> None:
    with pytest.warns(NoEffectWarning, match=r"Halve\(times=0\) has no effect: it is nought"):
        Halve(0).warn_no_effect("it is nought")
    error = Halve(0).refuse("why")
    assert isinstance(error, TechniqueError)
    assert str(error) == "Halve(times=0): why"


class Mixed(TechniqueMixin, BoringModel):
    """Brings techniques of its own."""

    def __init__(self, *techniques: Technique | None) -> None:
        super().__init__()
        self.add_techniques(*techniques)


def weights_after(module: LightningModule, *callbacks: Callback) -> torch.Tensor:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.5)
    seed_everything(2, verbose=False)
    trainer_with(*callbacks, max_epochs=2).fit(module)
    return module.layer.weight  # type: ignore[no-any-return,union-attr,return-value]


def test_mixin_and_callback_end_bitwise_alike() -> None:
    mixed = weights_after(Mixed(Halve(2), None, Draw()))
    assert torch.equal(mixed, weights_after(BoringModel(), Halve(2), Draw()))
    assert not torch.equal(mixed, weights_after(BoringModel()))


def test_mixin_conflicts_with_the_same_class_and_kind_in_the_trainer() -> None:
    with pytest.raises(ConflictError, match=r"Mixed brings Halve\(times=2\), .* has Halve\(\)"):
        trainer_with(Halve()).fit(Mixed(Halve(2)))
    with pytest.raises(ConflictError, match="loss halver"):
        trainer_with(Quarter()).fit(Mixed(Halve(2)))


def test_mixin_trains_and_tests_again_in_the_same_trainer() -> None:
    module = Mixed(Halve())
    trainer = trainer_with()
    trainer.fit(module)
    trainer.test(module, verbose=False)
    trainer.fit(module)
    assert sum(isinstance(c, Halve) for c in trainer.callbacks) == 1  # type: ignore[attr-defined]


def test_a_copy_leaves_the_module_behind() -> None:
    technique = Halve()
    Trainer(**QUIET, callbacks=[technique], max_steps=1).fit(BoringModel())
    assert "log" in vars(technique)  # Lightning has put it there
    assert not {"log", "log_dict"} & vars(copy.deepcopy(technique)).keys()
