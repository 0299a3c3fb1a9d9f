"""What "auto" decides, and on which batch."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from lightning_dlopt import MixUp
from lightning_dlopt.augmentation.label_probe import depends_linearly, other_labels
from lightning_dlopt.core import keyed_generator
from tests.augmentation.mixing import CLASSES, Loss, Module, batches, train

WEIGHTS = torch.linspace(0.2, 3.0, CLASSES)
CENTERS = torch.randn(CLASSES, CLASSES, generator=keyed_generator(8))
COARSE = torch.tensor([0, 0, 1, 1, 2])


def weighted_samples(logits: Tensor, y: Tensor) -> Tensor:
    return (WEIGHTS[y] * functional.cross_entropy(logits, y, reduction="none")).mean()


def margin(logits: Tensor, y: Tensor) -> Tensor:
    shifted: Tensor = logits - 0.5 * functional.one_hot(y, CLASSES)
    return functional.cross_entropy(shifted, y)


def with_centers(logits: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(logits, y) + 0.1 * (logits - CENTERS[y]).square().mean()


def detached_focal(logits: Tensor, y: Tensor) -> Tensor:
    values = functional.cross_entropy(logits, y, reduction="none")
    return ((1 - (-values.detach()).exp()) ** 2 * values).mean()


def fine_and_coarse(logits: Tensor, y: Tensor) -> Tensor:
    coarse = functional.cross_entropy(logits[:, :3], COARSE[y])
    return functional.cross_entropy(logits, y) + coarse


def with_dice(logits: Tensor, y: Tensor) -> Tensor:
    p, hot = logits.softmax(1), functional.one_hot(y, CLASSES)
    dice = 1 - (2 * (p * hot).sum(0) / (p + hot).sum(0)).mean()
    return functional.cross_entropy(logits, y) + dice


def by_hand(logits: Tensor, y: Tensor) -> Tensor:
    other: Tensor = -(0.1 * logits).log_softmax(1).gather(1, y[:, None]).mean()
    return functional.cross_entropy(logits, y) + other


def squared(logits: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(logits, y) ** 2


DEPENDENT = [
    weighted_samples,
    margin,
    with_centers,
    detached_focal,
    fine_and_coarse,
    with_dice,
    by_hand,
    squared,
]


def both(logits: Tensor, y: Tensor) -> Tensor:
    return (
        2 * functional.cross_entropy(logits, y, weight=WEIGHTS.to(logits)) + logits.square().mean()
    )


def found(technique: MixUp) -> Any:
    return technique.state_dict()["labels_found"]


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
@pytest.mark.parametrize("loss", DEPENDENT)
def test_losses_into_which_the_labels_come_otherwise_take_two_passes(
    loss: Loss, precision: Any
) -> None:
    technique = MixUp(1.0)
    kind = torch.float64 if precision == "64-true" else torch.float32
    given = [(x.to(kind), y) for x, y in batches()]
    with pytest.warns(UserWarning, match="isn't a sum of cross-entropies"):
        train([technique], given, Module(loss), precision=precision)
    assert found(technique) == "twice"


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("loss", [functional.cross_entropy, both, nn.CrossEntropyLoss()])
def test_sums_of_cross_entropies_take_one(loss: Loss, precision: Any) -> None:
    technique = MixUp(1.0)
    train([technique], batches(), Module(loss, dropout=0.5), precision=precision)
    assert found(technique) == "loss"


def test_a_curve_is_seen_in_a_large_batch() -> None:
    technique = MixUp(1.0)
    with pytest.warns(UserWarning, match="isn't a sum of cross-entropies"):
        train([technique], batches(1, size=4096), Module(squared))
    assert found(technique) == "twice"


def test_which_losses_are_weighted_sums() -> None:
    weight, shares = torch.ones((), requires_grad=True), torch.linspace(0.5, 1, 4)
    parts = [torch.rand(4, requires_grad=True), torch.rand((), requires_grad=True)]
    many, one = parts
    for linear in (many.mean() + one, 3 * one, weight * one + weight**2, (many * shares).sum()):
        assert depends_linearly(linear, parts)
    for other in (((1 - (-many).exp()) ** 2 * many).mean(), one**2 + many.sum(), weight * 2):
        assert not depends_linearly(other, parts)
    assert not depends_linearly(torch.tensor(1.0), parts)


def test_the_probe_leaves_no_trace() -> None:
    class Counts(Module):
        calls = 0

        def __init__(self) -> None:
            super().__init__(dropout=0.5)
            self.accuracy = MulticlassAccuracy(CLASSES)
            self.norm = nn.BatchNorm1d(4)
            self.teacher = nn.Linear(4, 1).requires_grad_(False)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            passes.append(batch[1])
            self.calls += 1
            with torch.no_grad():
                self.teacher.weight.fill_(0).add_(self.calls)
            logits = self.net(self.norm(batch[0].mul_(1.0)))
            self.accuracy.update(logits, batch[1])
            self.log("loss", 1.0)
            return functional.cross_entropy(logits, batch[1])

    passes: list[Tensor] = []
    module = train([MixUp(1.0)], batches(3), Counts())
    assert len(passes) == 6
    assert module.calls == 3
    assert (module.teacher.weight == 3).all()
    assert int(module.norm.num_batches_tracked) == 3
    assert int(module.accuracy.tp.sum() + module.accuracy.fn.sum()) == 18


def test_a_batch_of_one_label_is_run_twice_and_the_next_one_asked() -> None:
    (x, y), *rest = batches(3)
    technique = MixUp(1.0)
    module = train([technique], [(x, torch.full_like(y, 2))])
    assert found(technique) is None
    with torch.no_grad():
        logits = module.net(module.seen[0][0])
        plain = functional.cross_entropy(logits, module.seen[0][1])
    torch.testing.assert_close(module.losses[0], float(plain))
    again = MixUp(1.0)
    train([again], [(x, torch.full_like(y, 2)), *rest])
    assert found(again) == "loss"


def test_a_last_layer_of_zeros_does_not_tell() -> None:
    class Zeros(Module):
        def on_train_start(self) -> None:
            for weight in self.parameters():
                nn.init.zeros_(weight)

    technique = MixUp(1.0)
    train([technique], batches(2), Zeros(detached_focal))
    assert found(technique) is None


def test_labels_in_another_order() -> None:
    assert other_labels(torch.tensor([3, 3, 3])) is None
    assert other_labels(torch.tensor([3])) is None
    assert other_labels(torch.tensor([], dtype=torch.int64)) is None
    maps = torch.arange(3)[:, None, None].expand(3, 2, 2)
    moved = other_labels(maps)
    assert moved is not None
    assert bool(torch.ne(moved, maps).all())


def test_a_closure_that_runs_a_batch_again_gets_the_same_inputs() -> None:
    class Closures(Module):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)

    inputs: list[list[Tensor]] = [[], []]
    for number, labels in enumerate(("auto", "twice")):

        class Keeps(Closures):
            place = number

            def training_step(self, batch: Any, batch_idx: int) -> Any:
                inputs[self.place].append(batch[0].clone())
                return super().training_step(batch, batch_idx)

        module: LightningModule = Keeps()
        train([MixUp(1.0, labels=labels)], batches(1), module)
    assert len(inputs[0]) > 4
    assert all(torch.equal(one, inputs[0][0]) for one in inputs[0])
