import copy
import functools
import pickle
from itertools import permutations
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from lightning_dlopt.core import Patches, TechniqueError
from lightning_dlopt.core.patching import BATCH, LOSS, OUTERMOST, RERUN
from tests.quiet import QUIET


class Counter:
    """Has a method whose result tells which instance it works on."""

    def __init__(self, value: int = 1) -> None:
        self.value = value

    def get(self) -> int:
        return self.value


def plus(amount: int) -> Any:
    return lambda original: lambda: original() + amount


def test_one_instance_only() -> None:
    patched, other, patches = Counter(), Counter(), Patches()
    patches.patch(patched, "get", plus(10))
    assert (patched.get(), other.get()) == (11, 1)
    patches.undo()
    assert patched.get() == 1
    assert vars(patched) == {"value": 1}


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_undone_in_any_order(order: tuple[int, ...]) -> None:
    counter, all_patches = Counter(), [Patches() for _ in range(3)]
    for index, patches in enumerate(all_patches):
        patches.patch(counter, "get", plus(10 ** (index + 1)))
    left = 1111
    for index in order:
        assert counter.get() == left
        all_patches[index].undo()
        left -= 10 ** (index + 1)
    assert counter.get() == left == 1
    assert vars(counter) == {"value": 1}


def test_twice_by_one_technique_is_refused_and_undo_twice_is_not() -> None:
    counter, patches = Counter(), Patches()
    patches.patch(counter, "get", plus(1))
    with pytest.raises(TechniqueError, match=r"Counter\.get is patched already"):
        patches.patch(counter, "get", plus(1))
    patches.undo()
    patches.undo()
    patches.patch(counter, "get", plus(5))
    assert counter.get() == 6


def test_what_stood_in_the_instance_comes_back() -> None:
    counter, patches = Counter(), Patches()
    own = lambda: 70  # noqa: E731
    counter.get = own  # type: ignore[method-assign]
    patches.patch(counter, "get", plus(1))
    assert counter.get() == 71
    patches.undo()
    assert counter.get is own


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, copy.copy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_copies_have_their_own_method(twin: Any) -> None:
    counter, patches = Counter(), Patches()
    patches.patch(counter, "get", plus(10))
    other = twin(counter)
    if twin is not copy.copy:
        other.value = 5
        assert other.get() == 5
    patches.undo()
    assert counter.get() == 1


def test_modules_are_copied_and_pickled_while_patched() -> None:
    module, patches = BoringModel(), Patches()
    patches.patch(module, "training_step", lambda _: lambda *_: None)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        with torch.no_grad():
            twin.layer.weight.fill_(2.0)
            twin.layer.bias.fill_(0.0)
        batch = torch.ones(1, 32)
        # the copy's method works on the copy's weights: (64 - 1) squared
        assert float(twin.training_step(batch, 0)["loss"]) == 63.0**2
    assert module.training_step(batch, 0) is None


def test_lightning_sees_which_hooks_are_overridden() -> None:
    class Plain(BoringModel):
        pass

    module, patches = Plain(), Patches()
    assert not is_overridden("on_train_epoch_start", module)
    patches.patch(module, "on_train_epoch_start", lambda original: lambda: original())
    patches.patch(module, "training_step", lambda original: lambda *args: original(*args))
    assert is_overridden("on_train_epoch_start", module)
    assert is_overridden("training_step", module)
    assert module.training_step.__name__ == "training_step"
    patches.undo()
    assert not is_overridden("on_train_epoch_start", module)


def test_a_method_that_was_set_anew_is_patched_again() -> None:
    counter, outer, inner = Counter(), Patches(), Patches()
    outer.patch(counter, "get", plus(1))
    inner.patch(counter, "get", plus(10), LOSS)
    assert outer.are_in_place()
    assert inner.are_in_place()
    old = counter.get
    new = lambda: 700 + old()  # noqa: E731 - as who keeps the old one and calls it
    counter.get = new  # type: ignore[method-assign]
    assert not outer.are_in_place()
    assert not inner.are_in_place()
    for _ in range(2):
        outer.follow(counter, "get")
        inner.follow(counter, "get")
        assert counter.get() == 712
    outer.follow(Counter(), "get")
    outer.undo()
    assert counter.get() == 711
    inner.undo()
    assert counter.get is new
    assert counter.get() == 701


def decorated(step: Any) -> Any:
    @functools.wraps(step)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return step(*args, **kwargs)

    return inner


class TakesTheIndex(BoringModel):
    pass


class TakesTheBatch(BoringModel):
    def training_step(self, batch: Any) -> Any:  # type: ignore[override]
        return super().training_step(batch, 0)


class IsDecorated(BoringModel):
    @decorated
    def training_step(self, batch: Any) -> Any:
        return super().training_step(batch, 0)


@pytest.mark.parametrize("kind", [TakesTheIndex, TakesTheBatch, IsDecorated])
def test_lightning_sees_the_same_arguments(kind: type[BoringModel]) -> None:
    module, patches = kind(), [Patches(), Patches()]
    takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
    assert takes_index == (kind is TakesTheIndex)
    for one in patches:
        one.patch(module, "training_step", lambda original: lambda *args: original(*args))
        seen = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
        assert seen == takes_index
        assert is_overridden("training_step", module)
    Trainer(**QUIET, fast_dev_run=True).fit(module)


def test_arguments_and_results_pass_through() -> None:
    class Adder:
        def add(self, left: int, *, right: int) -> int:
            return left + right

    adder, patches = Adder(), Patches()

    def wrap(original: Any) -> Any:
        return lambda left, *, right: [original(left, right=right)]

    patches.patch(adder, "add", wrap)
    assert adder.add(1, right=2) == [3]  # type: ignore[comparison-overlap]


def test_an_absent_method_is_an_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        Patches().patch(Counter(), "nothing", plus(1))


@pytest.mark.parametrize("order", list(permutations([RERUN, LOSS, BATCH, OUTERMOST])))
def test_levels_are_nested_whatever_the_order(order: tuple[int, ...]) -> None:
    class Speaker:
        def speak(self) -> str:
            return "."

    def around(level: int) -> Any:
        return lambda original: lambda: f"{level}{original()}"

    for undone in permutations(order):
        speaker, all_patches = Speaker(), {level: Patches() for level in order}
        left: list[int] = []
        for level in order:
            all_patches[level].patch(speaker, "speak", around(level), level)
            left = sorted([*left, level], reverse=True)
            assert speaker.speak() == "".join(map(str, left)) + "."
        for level in undone:
            all_patches[level].undo()
            left.remove(level)
            assert speaker.speak() == "".join(map(str, left)) + "."
        assert not vars(speaker)


def test_a_lower_level_keeps_what_stood_in_the_instance() -> None:
    counter, outer, inner = Counter(), Patches(), Patches()
    own = lambda: 70  # noqa: E731
    counter.get = own  # type: ignore[method-assign]
    outer.patch(counter, "get", plus(1))
    inner.patch(counter, "get", plus(10), LOSS)
    assert counter.get() == 81
    outer.undo()
    assert counter.get() == 80
    inner.undo()
    assert counter.get is own
