"""The techniques that change the cross-entropy, several of them in one run."""

import warnings
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import Distillation, LabelSmoothing, RDrop, ScheduledDropout
from lightning_dlopt.core import NoEffectWarning, Technique
from lightning_dlopt.core.batch import replace_fields
from lightning_dlopt.core.patching import BATCH
from tests.regularization.conftest import (
    CLASSES,
    FEATURES,
    Stranger,
    assert_close_weights,
    assert_equal_weights,
    fit,
    loader,
    network,
)

SMOOTHING, ALPHA, TEMPERATURE, WEIGHT = 0.2, 0.7, 2.0, 0.4


class Doubles(Technique):
    """Changes the input, as augmentation does."""

    def prepare(self, trainer: Any, pl_module: Any) -> None:
        def wrap(step: Any) -> Any:
            return lambda batch, index: step(replace_fields(batch, {0: 2 * batch[0]}), index)

        self.patch(pl_module, "training_step", wrap, level=BATCH)


class TwiceInBatch(Technique):
    """Runs the whole training step a second time before it counts, as SAM does."""

    def prepare(self, trainer: Any, pl_module: Any) -> None:
        def wrap(step: Any) -> Any:
            def twice(*args: Any) -> Any:
                with torch.random.fork_rng():
                    torch.autograd.grad(step(*args), list(pl_module.net.parameters()))
                return step(*args)

            return twice

        self.patch(pl_module, "training_step", wrap)


class Teacher(nn.Linear):
    def __init__(self) -> None:
        torch.manual_seed(3)
        super().__init__(FEATURES, CLASSES)


def kinds() -> dict[str, Technique]:
    return {
        "smoothing": LabelSmoothing(SMOOTHING),
        "r_drop": RDrop(ALPHA),
        "distillation": Distillation(Teacher(), TEMPERATURE, WEIGHT),
        "doubles": Doubles(),
    }


class Quiet(Stranger):
    """Has no statistics, so that passes don't influence each other."""

    def __init__(self) -> None:
        super().__init__(dropout=0.5)
        self.net = nn.Sequential(
            *[part for part in network(0.5) if part.__class__.__name__[0] != "B"]
        )


def by_hand() -> nn.Module:
    """The loss that the documentation promises, whatever the order of the callbacks."""
    module, technique = Quiet(), RDrop(ALPHA)
    optimizer, teacher = module.configure_optimizers(), Teacher()
    torch.manual_seed(9)
    step = 0

    class Now:
        global_rank = 0

        class fit_loop:  # noqa: N801
            total_batch_idx = 0

    for _ in range(2):
        for x, y in loader():
            x = 2 * x
            Now.fit_loop.total_batch_idx = step
            seed = technique.generator(Now).initial_seed()  # type: ignore[arg-type]
            one = module.net(x)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                two = module.net(x)
            loss = ALPHA * agreement(one, two)
            soft = (teacher(x).detach() / TEMPERATURE).softmax(1)
            for logits in (one, two):
                hard = functional.cross_entropy(logits, y, label_smoothing=SMOOTHING)
                student = (logits / TEMPERATURE).log_softmax(1)
                guided = functional.kl_div(student, soft, reduction="batchmean")
                loss = loss + ((1 - WEIGHT) * hard + WEIGHT * TEMPERATURE**2 * guided) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return module.net


def agreement(one: Tensor, two: Tensor) -> Tensor:
    p, q = one.softmax(1), two.softmax(1)
    return ((p - q) * (p / q).log()).sum(1).mean() / 2


@pytest.mark.parametrize("order", list(permutations(kinds())), ids="-".join)
def test_all_together_in_any_order(order: tuple[str, ...]) -> None:
    techniques, module = kinds(), Quiet()
    fit(module, [techniques[name] for name in order])
    assert_close_weights(module.net, by_hand())


def test_the_teacher_is_asked_once_for_both_passes() -> None:
    runs = []

    class Counts(Teacher):
        def forward(self, x: Tensor) -> Tensor:
            runs.append(1)
            return super().forward(x)

    fit(Quiet(), [Distillation(Counts(), 2.0, 0.5), RDrop(1.0)])
    assert len(runs) == 8


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["smoothing", "r_drop", "distillation"])
def test_a_step_may_be_run_twice_from_outside(name: str, first: bool) -> None:
    modules = []
    for extra in ([], [TwiceInBatch()]):
        module = Quiet()
        pair = [kinds()[name], *extra]
        fit(module, pair if first else pair[::-1])
        modules.append(module.net)
    assert_equal_weights(*modules)


def test_dropout_that_rises_from_0_is_no_reason_to_warn() -> None:
    technique = RDrop(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        fit(Stranger(dropout=0.5), [technique, ScheduledDropout(0.0, 0.5, 4)])
    assert technique._has_compared
