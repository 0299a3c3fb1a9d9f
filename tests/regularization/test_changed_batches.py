"""Modules whose training step changes the batch that it gets."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_dlopt import Distillation, RDrop
from tests.quiet import QUIET
from tests.regularization.conftest import CLASSES, FEATURES, Stranger, assert_close_weights, data
from tests.regularization.conftest import fit as fit_tuples


class Normalizes(Stranger):
    """Writes the normalized image into the batch, as many do."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        batch["image"] = (batch["image"] - 0.5) * 2
        return super().training_step((batch["image"], batch["label"]), batch_idx)


class Pops(Stranger):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step((batch.pop("image"), batch.pop("label")), batch_idx)


class WritesInPlace(Stranger):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        batch["image"].sub_(0.5).mul_(2)
        return super().training_step((batch["image"], batch["label"]), batch_idx)


def fit(module: Stranger, techniques: Any = ()) -> Stranger:
    x, y = data()
    loader: Any = DataLoader(
        [{"image": i, "label": t} for i, t in zip(x, y, strict=True)],  # type: ignore[arg-type]
        batch_size=8,
    )
    Trainer(**QUIET, callbacks=list(techniques), max_epochs=1, devices=1).fit(module, loader)
    return module


@pytest.mark.parametrize("kind", [Normalizes, Pops, WritesInPlace])
def test_r_drops_second_pass_gets_the_batch_as_it_was(kind: type[Stranger]) -> None:
    # without dropout the two passes agree, and training is what it is without R-Drop
    module = kind()
    with pytest.warns(UserWarning, match="both passes of a batch give the same logits"):
        fit(module, [RDrop(1.0)])
    assert_close_weights(module.net, fit(kind()).net)
    first, second = module.losses[:2]
    assert first == second


@pytest.mark.parametrize("kind", [Normalizes, Pops, WritesInPlace])
def test_a_teacher_gets_the_input_as_the_step_got_it(kind: type[Stranger]) -> None:
    seen: list[Tensor] = []

    class Teacher(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.clone())
            return super().forward(x)

    fit(kind(), [Distillation(Teacher(FEATURES, CLASSES), 1.0, 0.5)])
    assert torch.equal(torch.cat(seen), data()[0])


def test_a_teacher_may_write_to_its_input() -> None:
    linear = nn.Linear(FEATURES, CLASSES)
    losses = []
    for inplace in (False, True):
        module = Stranger()
        teacher = nn.Sequential(nn.ReLU(inplace), linear)
        fit_tuples(module, [Distillation(teacher, 1.0, 0.5)])
        losses.append(module.losses)
    assert losses[0] == losses[1]
