from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import LabelSmoothing, smooth_labels
from lightning_dlopt.core import ArgumentError, ConflictError, TechniqueError
from tests.regularization.conftest import CLASSES, Stranger, assert_equal_weights, fit

WEIGHT = torch.tensor([1.0, 2.0, 0.5])


def summed(logits: Tensor, y: Tensor, **options: Any) -> Tensor:
    return functional.cross_entropy(logits, y, reduction="none", **options).sum() / 8


def soft(logits: Tensor, y: Tensor, **options: Any) -> Tensor:
    return functional.cross_entropy(logits, functional.one_hot(y, CLASSES).float(), **options)


def in_pixels(logits: Tensor, y: Tensor, **options: Any) -> Tensor:
    pairs = logits.unflatten(0, (4, 2)).movedim(-1, 1)
    return functional.cross_entropy(pairs, y.view(4, 2), **options)


LOSSES: dict[str, Any] = {
    "plain": functional.cross_entropy,
    "weight": partial(functional.cross_entropy, weight=WEIGHT),
    "ignore_index": partial(functional.cross_entropy, ignore_index=1),
    "none": summed,
    "soft": soft,
    "pixels": in_pixels,
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_trains_as_torchs_own_argument_does(loss: Any) -> None:
    smoothed, reference = Stranger(loss), Stranger(partial(loss, label_smoothing=0.2))
    trainer, expected = fit(smoothed, [LabelSmoothing(0.2)]), fit(reference)
    assert_equal_weights(smoothed.net, reference.net)
    assert smoothed.losses == reference.losses
    # validation has the module's own loss, and metrics see hard labels
    assert smoothed.val_losses != reference.val_losses
    assert all(not label.is_floating_point() for label in smoothed.labels)
    assert trainer.logged_metrics["accuracy"] == expected.logged_metrics["accuracy"] > 0


def test_validation_is_that_of_the_weights() -> None:
    module = Stranger()
    trainer = fit(module, [LabelSmoothing(0.2)])
    before = module.val_losses[-4:]
    module.val_losses.clear()
    trainer.validate(module, trainer.val_dataloaders, verbose=False)
    assert module.val_losses == before


def test_a_validation_that_calls_the_training_step_is_left_alone() -> None:
    class Lazy(Stranger):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            x, y = batch
            with torch.enable_grad():
                self.val_losses.append(self.training_step(batch, batch_idx).item())
                assert self.val_losses[-1] == functional.cross_entropy(self.net(x), y).item()

    fit(Lazy(), [LabelSmoothing(0.2)])


def nll(logits: Tensor, y: Tensor) -> Tensor:
    return nn.NLLLoss()(logits.log_softmax(1), y)


def test_nll_of_log_softmax() -> None:
    smoothed = Stranger(nll)
    reference = Stranger(partial(functional.cross_entropy, label_smoothing=0.2))
    fit(smoothed, [LabelSmoothing(0.2)])
    fit(reference)
    torch.testing.assert_close(smoothed.losses, reference.losses)


@pytest.mark.parametrize("smoothing", [0.1, 0.2])
def test_a_module_that_smooths_itself_is_a_conflict(smoothing: float) -> None:
    module = Stranger(nn.CrossEntropyLoss(label_smoothing=smoothing))
    before = [p.clone() for p in module.net.parameters()]
    with pytest.raises(ConflictError, match=rf"LabelSmoothing.*label_smoothing={smoothing}"):
        fit(module, [LabelSmoothing(0.2)])
    assert all(map(torch.equal, before, module.net.parameters()))


def one_hot_bce(logits: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(
        logits, functional.one_hot(y, CLASSES).float()
    )


def by_hand(logits: Tensor, y: Tensor) -> Tensor:
    return -logits.log_softmax(1).gather(1, y[:, None]).mean()


@pytest.mark.parametrize(
    ("loss", "message"),
    [(one_hot_bce, "but binary_cross_entropy_with_logits"), (by_hand, "could be caught")],
)
def test_another_loss_is_refused_before_the_first_step(loss: Any, message: str) -> None:
    module = Stranger(loss)
    before = [p.clone() for p in module.net.parameters()]
    with pytest.raises(TechniqueError, match=rf"LabelSmoothing.*Stranger.*{message}"):
        fit(module, [LabelSmoothing(0.2)])
    assert all(map(torch.equal, before, module.net.parameters()))
    assert "training_step" not in vars(module)


class Manual(Stranger):
    """Calls backward by itself."""

    def __init__(self, loss: Any = functional.cross_entropy) -> None:
        super().__init__(loss)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        super().training_step(batch, batch_idx).backward()
        optimizer.step()


def test_manual_optimization() -> None:
    smoothed, reference = Manual(), Manual(partial(functional.cross_entropy, label_smoothing=0.2))
    fit(smoothed, [LabelSmoothing(0.2)])
    fit(reference)
    assert_equal_weights(smoothed.net, reference.net)


def test_manual_optimization_of_another_loss_is_refused_before_the_first_step() -> None:
    module = Manual(one_hot_bce)
    before = [p.clone() for p in module.net.parameters()]
    with pytest.raises(TechniqueError, match="LabelSmoothing"):
        fit(module, [LabelSmoothing(0.2)])
    assert all(map(torch.equal, before, module.net.parameters()))


def test_every_cross_entropy_of_a_step_is_smoothed() -> None:
    def two(logits: Tensor, y: Tensor, **options: Any) -> Tensor:
        main = functional.cross_entropy(logits, y, **options)
        return main + 0.3 * functional.cross_entropy(logits.flip(1), y, **options)

    smoothed, reference = Stranger(two), Stranger(partial(two, label_smoothing=0.2))
    fit(smoothed, [LabelSmoothing(0.2)])
    fit(reference)
    assert_equal_weights(smoothed.net, reference.net)


def test_a_compiled_network_is_fine() -> None:
    smoothed, reference = (
        Stranger(),
        Stranger(partial(functional.cross_entropy, label_smoothing=0.2)),
    )
    smoothed.net.compile(backend="eager")
    fit(smoothed, [LabelSmoothing(0.2)])
    fit(reference)
    assert_equal_weights(smoothed.net, reference.net)


def test_a_loss_inside_a_compiled_function_is_refused() -> None:
    # compiled below the training step, so that only the first step can tell
    module = Stranger(torch.compile(functional.cross_entropy, backend="aot_eager"))
    with pytest.raises(TechniqueError, match=r"inside what torch\.compile compiled none can be"):
        fit(module, [LabelSmoothing(0.2)])


def test_nothing_is_patched_at_the_neutral_setting() -> None:
    class Looks(Stranger):
        def on_train_start(self) -> None:
            assert "training_step" not in vars(self)

    with pytest.warns(UserWarning, match="smoothing is 0"):
        fit(Looks(), [LabelSmoothing(0)])


@pytest.mark.parametrize("shape", [(5,), (2, 4)])
def test_smooth_labels_are_torchs(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(3, shape, generator=generator)
    logits = torch.randn(shape[0], 3, *shape[1:], generator=generator)
    expected = functional.cross_entropy(logits, target, label_smoothing=0.3)
    smooth = smooth_labels(target, 0.3, num_classes=3)
    torch.testing.assert_close(functional.cross_entropy(logits, smooth), expected)
    torch.testing.assert_close(smooth_labels(smooth, 0.0), smooth)
    again = functional.cross_entropy(logits, smooth, label_smoothing=0.5)
    torch.testing.assert_close(functional.cross_entropy(logits, smooth_labels(smooth, 0.5)), again)


def test_smooth_labels_need_the_number_of_classes() -> None:
    with pytest.raises(ArgumentError, match="num_classes=None"):
        smooth_labels(torch.tensor([0]), 0.1)
    with pytest.raises(ArgumentError, match=r"smoothing=2 is not in \[0, 1\]"):
        smooth_labels(torch.rand(1, 2), 2)
