"""Targets and losses that a batch mixer refuses or warns of, and what a preview shows."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lightning_dlopt import ConflictError, CutMix, MixUp, RandomMix, TechniqueError
from lightning_dlopt.core import keyed_generator
from tests.augmentation.mixing import CLASSES, Module, batches, train

IMAGES = torch.rand(6, 1, 8, 8, generator=keyed_generator(3))
LABELS = torch.arange(6) % CLASSES


class TwoTargets(Module):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y, z = batch
        logits = self.net(x)
        return functional.cross_entropy(logits, y) + functional.cross_entropy(-logits, z.clone())


@pytest.mark.parametrize("labels", ["auto", "loss"])
def test_a_cross_entropy_of_a_second_target_is_refused(labels: str) -> None:
    x, y = batches(1)[0]
    with pytest.raises(TechniqueError, match="cross-entropy of the batch's 2, which isn't mixed"):
        train([MixUp(1.0, labels=labels)], [(x, y, (y + torch.arange(6)) % CLASSES)], TwoTargets())
    for same in (y, torch.ones_like(y)):  # nothing is wrong where partners have the same
        train([MixUp(1.0, labels=labels)], [(x, y, same)], TwoTargets())


def test_labels_that_are_not_used_are_refused() -> None:
    class Second(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return functional.cross_entropy(self.net(batch[0]), batch[2]).square()

    x, y = batches(1)[0]
    for labels, why in (("auto", "cross-entropy of the batch's 2"), ("twice", "use the labels")):
        with pytest.raises(TechniqueError, match=f"{why}.*target_key="):
            train([MixUp(1.0, labels=labels)], [(x, y, (y + 1).clamp_max(4))], Second())
    train([MixUp(1.0, target_key=2)], [(x, y, (y + 1).clamp_max(4))], Second())


class WithBinary(Module):
    """From its second step on it computes a binary cross-entropy, too."""

    begin = 1

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        logits = self.net(batch[0])
        loss = functional.cross_entropy(logits, batch[1])
        if batch_idx >= self.begin:
            hot = functional.one_hot(batch[1], CLASSES).float()
            loss = loss + functional.binary_cross_entropy_with_logits(logits, hot)
        return loss


class Manual(WithBinary):
    begin = 0

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        self.manual_backward(super().training_step(batch, batch_idx))
        self.optimizers().step()  # type: ignore[union-attr]


def test_another_loss_of_classes_in_a_later_step_is_refused() -> None:
    message = "computes binary_cross_entropy_with_logits, whose labels aren't mixed: say labels="
    with pytest.raises(TechniqueError, match=message + "'twice'"):
        train([MixUp(1.0)], batches(), WithBinary())
    with pytest.raises(TechniqueError, match=message + "'loss'"):
        train([MixUp(1.0)], batches(), Manual())


@pytest.mark.parametrize("make", [WithBinary, Manual])
def test_for_loss_there_is_one_warning_of_it(make: Any) -> None:
    with pytest.warns(UserWarning, match="and not in its binary_cross") as told:
        train([MixUp(1.0, labels="loss")], batches(), make())
    assert len([one for one in told if "and not in its" in str(one.message)]) == 1


def test_pixels_of_another_resolution_are_refused() -> None:
    maps = torch.zeros(6, 4, 4).long()
    for technique in (CutMix(), RandomMix([MixUp(), CutMix()])):
        with pytest.raises(TechniqueError, match="must have the height and width of the images"):
            train([technique], [(IMAGES, maps)])


def test_each_map_of_classes_has_its_own_rectangle_from_the_first_batch_on() -> None:
    class Segments(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.seen.append(batch)
            loss: Tensor = self.net(batch[0]).sum()
            return loss

    numbers = torch.arange(6)[:, None, None].expand(6, 8, 8).contiguous()
    for technique in (CutMix(), RandomMix([CutMix()])):
        module = train([technique], [(IMAGES, numbers)] * 2, Segments())
        for _, maps in module.seen:
            areas = (maps == numbers).flatten(1).sum(1)
            assert len(areas.unique()) > 2


def test_classes_that_are_stored_as_floats_are_told_of_once() -> None:
    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return functional.mse_loss(logits[:, 0], y)

    x = batches(1)[0][0]
    floats = torch.tensor([0.0, 2, 1, 2, 0, 1])
    with pytest.warns(UserWarning, match="class labels stored as floats") as told:
        train([MixUp(1.0)], [(x, floats)] * 3, Module(loss))
    assert len([one for one in told if "stored as floats" in str(one.message)]) == 1
    for technique, target in (
        (MixUp(1.0, labels="soft"), floats),
        (MixUp(1.0), floats + 0.5),
        (MixUp(1.0), torch.arange(6.0)),
        (MixUp(1.0), torch.tensor([0.0, 1, 1, 0, 0, 1])),
    ):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*stored as floats.*")
            train([technique], [(x, target)], Module(loss))


def test_soft_labels_of_two_classes_may_be_meant() -> None:
    x, y = batches(1)[0]
    hot = functional.one_hot(y, CLASSES).float()
    given = [(x, 0.7 * hot + 0.3 * hot.roll(1, 0))]
    with pytest.raises(ConflictError, match="or say labels='soft' if nobody mixed them"):
        train([MixUp(1.0)], given)
    train([MixUp(1.0, labels="soft")], given)


@pytest.mark.parametrize("labels", ["auto", "twice", "loss", "soft"])
@pytest.mark.parametrize(
    "make",
    [
        lambda **more: MixUp(1.0, **more),
        CutMix,
        lambda **more: RandomMix([MixUp(1.0), CutMix()], **more),
    ],
)
def test_a_preview_has_the_draws_of_the_first_step(make: Any, labels: str) -> None:
    more = {"num_classes": CLASSES} if labels == "soft" else {}
    module = Module()
    module.loss = functional.cross_entropy
    train([make(labels=labels, **more)], [(IMAGES, LABELS)], module)
    technique = make(labels=labels, **more)
    shown, hard = technique.change((IMAGES, LABELS), technique.keyed(0))
    assert torch.equal(shown, module.seen[0][0])
    trained = module.seen[0][1]
    shares = technique.label_shares((IMAGES, LABELS), technique.keyed(0))
    if labels == "soft":
        rows = torch.zeros(6, CLASSES)
        for row, share in zip(rows, shares, strict=True):
            for label, part in share.items():
                row[label] = part
        torch.testing.assert_close(trained, rows)
    else:
        assert torch.equal(trained, hard)
        assert (len({max(share.values()) for share in shares if len(share) > 1}) == 1) == (
            labels != "loss"
        )
