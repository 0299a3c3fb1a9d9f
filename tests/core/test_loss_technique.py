import re
import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt.core import Patches, TechniqueError
from lightning_dlopt.core.loss_technique import LossTechnique, is_compiled
from lightning_dlopt.core.step_arguments import batch_of
from lightning_dlopt.data import TensorLoader
from tests.quiet import QUIET

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(16, 4, generator=GENERATOR), torch.arange(16) % 3


class Triple(LossTechnique):
    """Three times the cross-entropy."""

    def __init__(self, factor: float = 3.0) -> None:
        self.factor = factor

    def neutral(self) -> str | None:
        return "factor is 1" if self.factor == 1 else None

    def replace(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        return self.factor * functional.cross_entropy(logits, target, **options)


class Module(LightningModule):
    def __init__(self, factor: float = 1.0, fused: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net, self.factor, self.fused = nn.Linear(4, 3), factor, fused

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.factor * functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, fused=self.fused)


class Squares(Module):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.net(batch[0]).square().mean()


def fit(module: Any, techniques: Any = (), **arguments: Any) -> Any:
    settings = {**QUIET, "max_epochs": 2, "devices": 1, **arguments}
    Trainer(callbacks=list(techniques), **settings).fit(module, TensorLoader(X, Y, batch_size=4))
    return module


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_sixteen_bit_training(fused: bool, accumulate: int) -> None:
    def half() -> Any:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        return [MixedPrecision("16-mixed", "cpu", scaler)]

    settings = {"accumulate_grad_batches": accumulate}
    got = fit(Module(fused=fused), [Triple()], plugins=half(), **settings)
    expected = fit(Module(3.0, fused), plugins=half(), **settings)
    full = fit(Module(), [Triple()], **settings)
    torch.testing.assert_close(got.net.weight, expected.net.weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got.net.weight, full.net.weight, rtol=0.02, atol=0.01)


def test_a_compiled_module_is_found() -> None:
    assert not is_compiled(Module().training_step)
    compiled = torch.compile(Module(), backend="eager")
    with pytest.raises(TechniqueError, match=r"Triple.*Module is compiled as a whole.*network"):
        fit(compiled, [Triple()])
    patched, patches = Module(), Patches()
    patched.training_step = torch.compile(patched.training_step, backend="eager")  # type: ignore[method-assign]
    for _ in range(2):
        patches.patch(patched, "training_step", lambda step: step)
        assert is_compiled(patched.training_step)
        patches = Patches()

    def outer(step: Any) -> Any:
        def inner(*args: Any) -> Any:
            return step(*args)

        inner.__wrapped__ = step  # type: ignore[attr-defined]
        return inner

    assert is_compiled(outer(torch.compile(Module().training_step, backend="eager")))


def test_the_batch_is_found_among_the_arguments() -> None:
    assert batch_of((1, 2), {}) == 1
    assert batch_of((), {"batch_idx": 2, "batch": 1}) == 1
    assert batch_of((), {"data": 1, "index": 2}) == 1
    assert batch_of((), {}) is None


def test_a_first_batch_that_is_skipped_is_no_reason_to_refuse() -> None:
    class Skips(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = None if batch_idx == 0 else super().training_step(batch, batch_idx)
            return loss

    got, expected = fit(Skips(), [Triple()]), fit(Skips(3.0))
    torch.testing.assert_close(got.net.weight, expected.net.weight)


def test_a_later_batch_may_have_another_loss() -> None:
    class Alternates(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx % 2 == 0:
                return super().training_step(batch, batch_idx)
            return self.net(batch[0]).square().mean()

    fit(Alternates(), [Triple()])
    with pytest.raises(TechniqueError, match="no cross-entropy"):
        fit(Squares(), [Triple()])


class Sums(Module):
    """Adds another loss to its cross-entropy."""

    def __init__(self, other: Any) -> None:
        super().__init__()
        self.other = other

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        other = self.other(self.net(x), functional.one_hot(y, 3).float())
        return other + super().training_step(batch, batch_idx)


def test_another_loss_of_classes_besides_is_told_of_once() -> None:
    def without_gradient(logits: Tensor, y: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits.detach(), y)

    told = "Triple.*not on its binary_cross_entropy_with_logits"
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fit(Sums(functional.binary_cross_entropy_with_logits), [Triple()])
        assert len([w for w in seen if re.match(told, str(w.message))]) == 1
        for other in (functional.mse_loss, without_gradient):
            seen.clear()
            fit(Sums(other), [Triple()])
            assert not [w for w in seen if "Triple" in str(w.message)]


class Swaps(Module):
    """Sets its training step in a hook, as curricula do."""

    def __init__(self, hook: str, factor: float = 1.0) -> None:
        super().__init__(factor)
        setattr(self, hook, self.swap)

    def swap(self, *args: Any) -> None:
        if self.current_epoch == 1:
            self.training_step = self.other  # type: ignore[method-assign]

    def other(self, batch: Any, batch_idx: int) -> Any:
        return self.factor * functional.cross_entropy(2 * self.net(batch[0]), batch[1])


@pytest.mark.parametrize("hook", ["on_train_epoch_start", "on_train_batch_end"])
def test_a_training_step_that_is_set_anew_is_followed(hook: str) -> None:
    got, expected = fit(Swaps(hook), [Triple()]), fit(Swaps(hook, 3.0))
    torch.testing.assert_close(got.net.weight, expected.net.weight)
    assert vars(got)["training_step"] == got.other


def test_a_training_step_that_is_set_within_a_batch() -> None:
    with pytest.raises(TechniqueError, match=r"Swaps\.training_step was set to another method"):
        fit(Swaps("on_train_batch_start"), [Triple()])

    class FromWithin(Swaps):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.swap()
            return super().training_step(batch, batch_idx)

    got, expected = fit(FromWithin("-"), [Triple()]), fit(FromWithin("-", 3.0))
    torch.testing.assert_close(got.net.weight, expected.net.weight)


def test_the_same_technique_serves_a_second_fit() -> None:
    technique, module, expected = Triple(), Module(), Module(3.0)
    for _ in range(2):
        fit(module, [technique])
        fit(expected)
    torch.testing.assert_close(module.net.weight, expected.net.weight)
    with pytest.raises(TechniqueError, match="no cross-entropy"):
        fit(Squares(), [technique])
