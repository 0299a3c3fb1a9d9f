"""How the two labels come into the loss, on modules that know nothing of it."""

import zlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from lightning_dlopt import (
    ConflictError,
    Distillation,
    LabelSmoothing,
    MixUp,
    RDrop,
    TechniqueError,
    draw_shares,
    draw_shift,
    keyed_generator,
)
from tests.augmentation.mixing import CLASSES, Module, batches, train

ALPHA = 1.0


def focal(logits: Tensor, y: Tensor) -> Tensor:
    p = logits.softmax(1)[torch.arange(len(y)), y]
    return -((1 - p) ** 2 * p.log()).mean()


def caught_focal(logits: Tensor, y: Tensor) -> Tensor:
    loss = functional.cross_entropy(logits, y, reduction="none")
    return ((1 - (-loss).exp()) ** 2 * loss).mean()


def expected(module: Any, loss: Any, technique: MixUp, given: Any, one: Any = None) -> list[float]:
    """Return each batch's loss by hand: of every sample alone, or of one share for a batch."""
    key, found = zlib.crc32(repr(technique).encode()), []
    for number, (x, y) in enumerate(given):
        generator = keyed_generator(1, key, 0, number)
        is_one = number == 0 if one is None else one
        shares = draw_shares(1 if is_one else len(x), technique.alpha, generator).float()
        shares = torch.maximum(shares, 1 - shares)
        shift = draw_shift(len(x), generator)
        mixed = shares[:, None] * x + (1 - shares[:, None]) * x.roll(-shift, 0)
        with torch.no_grad():
            logits = module.net(mixed)
            pairs = [(logits, label) for label in (y, y.roll(-shift, 0))]
            if is_one:
                own, other = (loss(*pair) for pair in pairs)
                found.append(float(shares * own + (1 - shares) * other))
                continue
            rows = [[loss(a[i : i + 1], b[i : i + 1]) for i in range(len(x))] for a, b in pairs]
            own, other = (torch.stack(row) for row in rows)
            found.append(float((shares * own + (1 - shares) * other).mean()))
    return found


def assert_close(left: list[float], right: list[float]) -> None:
    torch.testing.assert_close(torch.tensor(left), torch.tensor(right), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("labels", ["auto", "loss"])
def test_cross_entropy_is_mixed_where_it_is_computed(labels: str) -> None:
    technique, given = MixUp(ALPHA, labels=labels), batches()
    module = train([technique], given)
    one = None if labels == "auto" else False
    assert_close(module.losses, expected(module, functional.cross_entropy, technique, given, one))
    for (_, y), (_, seen) in zip(given, module.seen, strict=True):
        assert torch.equal(seen, y)


@pytest.mark.parametrize("loss", [focal, caught_focal])
@pytest.mark.parametrize("as_dict", [True, False])
def test_any_other_loss_takes_two_passes(loss: Any, as_dict: bool) -> None:
    technique, given = MixUp(ALPHA), batches()
    module = Module((lambda *pair: {"loss": loss(*pair)}) if as_dict else loss)
    with pytest.warns(UserWarning, match="twice") as told:
        train([technique], given, module)
    assert len([one for one in told if "runs Module.training_step twice" in str(one.message)]) == 1
    assert_close(module.losses, expected(module, loss, technique, given, one=True))


def test_twice_and_loss_are_the_same_for_one_share() -> None:
    given = batches(1)
    twice = train([MixUp(ALPHA, labels="twice")], given)
    technique = MixUp(ALPHA, labels="twice")
    assert_close(
        twice.losses, expected(twice, functional.cross_entropy, technique, given, one=True)
    )
    first = train([MixUp(ALPHA)], given)
    assert_close(first.losses, expected(first, functional.cross_entropy, MixUp(ALPHA), given))


def test_the_two_passes_have_the_same_masks_and_the_second_leaves_no_trace() -> None:
    class Counts(Module):
        calls = 0

        def __init__(self) -> None:
            super().__init__(dropout=0.5)
            self.accuracy = MulticlassAccuracy(CLASSES)
            self.norm = torch.nn.BatchNorm1d(4)
            self.logits: list[Tensor] = []

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.calls += 1
            logits = self.net(self.norm(batch[0]))
            masks.append(logits.detach())
            self.accuracy.update(logits, batch[1])
            self.log("loss", 1.0)
            return focal(logits, batch[1])

    masks: list[Tensor] = []
    module = train([MixUp(ALPHA, labels="twice")], batches(3), Counts())
    assert len(masks) == 6
    assert all(torch.equal(*masks[i : i + 2]) for i in (0, 2, 4))
    assert not torch.equal(masks[0], masks[2])
    assert module.calls == 3
    assert int(module.norm.num_batches_tracked) == 3
    assert int(module.accuracy.tp.sum() + module.accuracy.fn.sum()) == 18


def test_metrics_see_hard_labels() -> None:
    class Measures(Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = MulticlassConfusionMatrix(CLASSES)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            assert not batch[1].is_floating_point()
            logits = self.net(batch[0])
            self.matrix.update(logits, batch[1])
            return functional.cross_entropy(logits, batch[1])

    given = batches(4)
    module = train([MixUp(ALPHA)], given, Measures())
    counts = torch.bincount(torch.cat([y for _, y in given]), minlength=CLASSES)
    assert torch.equal(module.matrix.compute().sum(1), counts)


def test_a_regression_gets_mixed_targets() -> None:
    given = [(x, torch.randn(len(x), CLASSES, generator=keyed_generator(4))) for x, _ in batches()]
    module = train([MixUp(ALPHA)], given, Module(functional.mse_loss))
    key = zlib.crc32(repr(MixUp(ALPHA)).encode())
    for number, ((x, y), seen) in enumerate(zip(given, module.seen, strict=True)):
        generator = keyed_generator(1, key, 0, number)
        shares = draw_shares(6, ALPHA, generator).float()[:, None]
        shares, shift = torch.maximum(shares, 1 - shares), draw_shift(6, generator)
        for value, found in zip((x, y), seen, strict=True):
            torch.testing.assert_close(found, shares * value + (1 - shares) * value.roll(-shift, 0))


def test_soft_labels_of_classes() -> None:
    given = batches()
    technique = MixUp(ALPHA, labels="soft", num_classes=CLASSES)
    module = train([technique], given)
    assert_close(
        module.losses, expected(module, functional.cross_entropy, technique, given, one=False)
    )
    with pytest.raises(TechniqueError, match="need num_classes="):
        train([MixUp(ALPHA, labels="soft")], given)


def test_label_smoothing_distillation_and_r_drop_work_on_both_labels() -> None:
    technique, given = MixUp(ALPHA), batches()
    teacher = torch.nn.Linear(4, CLASSES)

    def smoothed(logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits, y, label_smoothing=0.3)

    for order in (1, -1):
        module = train([LabelSmoothing(0.3), technique][::order], given)
        assert_close(module.losses, expected(module, smoothed, technique, given))
        module = train([RDrop(0.5), technique][::order], given, Module(dropout=0.0))
        plain = expected(module, functional.cross_entropy, technique, given)
        assert_close(module.losses, plain)  # without dropout both passes agree
        module = train([Distillation(teacher, 1.0, 0.5), technique][::order], given)
        divergences = []
        for x, _ in (batch for batch in module.seen):
            with torch.no_grad():
                p, q = teacher(x).softmax(1), module.net(x).softmax(1)
            divergences.append(float((p * (p / q).log()).sum(1).mean()))
        hand = [(a + b) / 2 for a, b in zip(plain, divergences, strict=True)]
        assert_close(module.losses, hand)


def test_r_drop_with_masks_runs_both_passes_on_both_labels() -> None:
    logits: list[Tensor] = []

    def keep(x: Tensor, y: Tensor) -> Tensor:
        logits.append(x.detach())
        return functional.cross_entropy(x, y)

    technique, given = MixUp(ALPHA, labels="loss"), batches(1)
    module = train([RDrop(0.5), technique], given, Module(keep, dropout=0.5))
    generator = keyed_generator(1, zlib.crc32(repr(technique).encode()), 0, 0)
    share = draw_shares(6, ALPHA, generator).float()
    share, y = torch.maximum(share, 1 - share), given[0][1]
    other = y.roll(-draw_shift(6, generator))
    assert len(logits) == 2
    p, q = (one.softmax(1) for one in logits)
    entropy = [
        share * functional.cross_entropy(one, y, reduction="none")
        + (1 - share) * functional.cross_entropy(one, other, reduction="none")
        for one in logits
    ]
    divergence = ((p - q) * (p / q).log()).sum(1).mean() / 2
    assert_close(module.losses, [float(sum(entropy).mean() / 2 + 0.5 * divergence)])  # type: ignore[union-attr]


def test_another_tasks_cross_entropy_is_left_alone() -> None:
    def both(logits: Tensor, y: Tensor) -> Tensor:
        sides = torch.tensor([0, 1, 0, 1, 1, 1])
        return functional.cross_entropy(logits, y) + functional.cross_entropy(-logits, sides)

    technique, given = MixUp(ALPHA), batches(1)
    module = train([technique], given, Module(both))
    assert_close(module.losses, expected(module, both, technique, given))


@pytest.mark.parametrize("labels", ["auto", "loss", "twice"])
def test_mixed_data_are_refused_unless_they_are_said_to_be_soft(labels: str) -> None:
    x, y = batches(1)[0]
    soft = functional.one_hot(y, CLASSES).float()
    given = [(x, 0.7 * soft + 0.3 * soft.roll(1, 0))]
    with pytest.raises(ConflictError, match="the data are mixed already"):
        train([MixUp(ALPHA, labels=labels)], given)
    train([MixUp(ALPHA, labels="soft")], given)


def test_a_module_that_mixes_is_refused() -> None:
    def mixes(logits: Tensor, y: Tensor) -> Tensor:
        own, other = (functional.cross_entropy(logits, one) for one in (y, y.flip(0)))
        return 0.7 * own + 0.3 * other

    with pytest.raises(ConflictError, match="mixes the labels itself"):
        train([MixUp(ALPHA)], batches(1), Module(mixes))


def test_what_has_no_cross_entropy_of_the_labels_is_refused_for_loss() -> None:
    with pytest.raises(TechniqueError, match="say labels='twice'"):
        train([MixUp(ALPHA, labels="loss")], batches(), Module(focal))


def test_a_batch_without_a_target_is_refused() -> None:
    with pytest.raises(TechniqueError, match="say by target_key="):
        train([MixUp(ALPHA)], [(torch.rand(6, 4),)])


def test_another_number_of_targets_is_refused() -> None:
    with pytest.raises(TechniqueError, match="one entry for each sample"):
        train([MixUp(ALPHA)], [(torch.rand(6, 4), torch.zeros(3).long())])


def test_the_answer_is_kept_for_a_resume() -> None:
    technique = MixUp(ALPHA)
    train([technique], batches())
    assert technique.state_dict()["labels_found"] == "loss"
    again = MixUp(ALPHA)
    assert again.state_dict()["labels_found"] is None
    again.load_state_dict(technique.state_dict())
    assert again.state_dict()["labels_found"] == "loss"


def test_maps_of_classes_are_mixed_pixel_by_pixel() -> None:
    class Segments(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.seen.append(batch)
            return functional.cross_entropy(self.logits(batch[0]), batch[1], ignore_index=0)

        def logits(self, x: Tensor) -> Tensor:
            scale = torch.arange(CLASSES, dtype=x.dtype)[:, None, None]
            return x * scale + 0 * self.net(x).sum()

    images = torch.rand(6, 1, 4, 3, generator=keyed_generator(5))
    maps = (images[:, 0] * CLASSES).long()
    technique = MixUp(ALPHA, labels="loss")
    module = train([technique], [(images, maps)], Segments())
    generator = keyed_generator(1, zlib.crc32(repr(technique).encode()), 0, 0)
    share = draw_shares(6, ALPHA, generator).float()[:, None, None]
    share, shift = torch.maximum(share, 1 - share), draw_shift(6, generator)
    logits = module.logits(module.seen[0][0])
    total = torch.zeros(())
    for labels, part in ((maps, share), (maps.roll(-shift, 0), 1 - share)):
        values = functional.cross_entropy(logits, labels, reduction="none", ignore_index=0)
        total = total + (part * values).sum() / (labels != 0).sum()
    assert_close(module.losses, [float(total)])
