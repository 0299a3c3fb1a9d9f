"""What all clipping shares, and norm and value clipping against torch's own functions."""

import math
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from lightning_dlopt import (
    ClipGradNorm,
    ClipGradValue,
    ConflictError,
    QuantileClip,
    Technique,
    TechniqueError,
)
from lightning_dlopt.optimizers import clip_by_norm_, clip_by_value_, global_norm
from tests.metrics_file import logged
from tests.quiet import QUIET


def gradients(seed: int = 0, scale: float = 1.0) -> list[nn.Parameter]:
    """Return parameters of several sizes with gradients; one has none, one is a large matrix."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (5,), (), (300, 200), (2, 3, 3, 3)]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in [*shapes, (7,)]]
    for parameter in parameters[:-1]:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale
    return parameters


def grads(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


@pytest.mark.parametrize("max_norm", [0.1, 50.0, 1e4])
def test_clip_by_norm_is_torchs(max_norm: float) -> None:
    ours, torchs = gradients(), gradients()
    norm = clip_by_norm_(ours, max_norm)
    reference = nn.utils.clip_grad_norm_(torchs, max_norm)
    torch.testing.assert_close(norm, reference, rtol=1e-5, atol=0)
    for left, right in zip(grads(ours), grads(torchs), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=0)


def test_norm_of_large_and_strided_gradients() -> None:
    large = [torch.randn(1 << 16), torch.randn(64, 32, 4, 4).to(memory_format=torch.channels_last)]
    half = torch.randn(1 << 16).bfloat16()
    exact = math.sqrt(sum(float(g.double().square().sum()) for g in [*large, half]))
    assert float(global_norm([*large, half])) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("clip_value", [0.01, 1.0, 100.0])
def test_clip_by_value_is_torchs(clip_value: float) -> None:
    ours, torchs = gradients(), gradients()
    clip_by_value_(ours, clip_value)
    nn.utils.clip_grad_value_(torchs, clip_value)
    for left, right in zip(grads(ours), grads(torchs), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_hidden(poison: float) -> None:
    parameters = gradients()
    parameters[0].grad[0, 0] = poison
    norm = clip_by_norm_(parameters, 1.0)
    assert not math.isfinite(float(norm))
    assert not parameters[0].grad.isfinite().all()


class Adds(Technique):
    """Adds a constant to every gradient, as a penalty does."""

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for parameter in pl_module.parameters():
            parameter.grad.add_(self.amount)


class Net(BoringModel):
    fused = False

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, fused=self.fused)


class OwnClipping(Net):
    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.01, gradient_clip_algorithm="value")


class Watch(Callback):
    """Keeps the gradients that the optimizer used."""

    def __init__(self) -> None:
        self.seen: list[list[Tensor]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        def keep(optimizer: Any, *args: Any) -> None:
            self.seen.append([p.grad.clone() for p in pl_module.parameters()])

        trainer.optimizers[0].register_step_post_hook(keep)


def fit(*callbacks: Callback, module: Any = Net, **arguments: Any) -> list[list[Tensor]]:
    torch.manual_seed(0)
    watch = Watch()
    settings: dict[str, Any] = {**QUIET, "max_steps": 4, "devices": 1, **arguments}
    Trainer(callbacks=[*callbacks, watch], **settings).fit(module())
    return watch.seen


def equal(left: list[list[Tensor]], right: list[list[Tensor]], rel: float = 1e-6) -> bool:
    return len(left) == len(right) and all(
        torch.allclose(a, b, rtol=rel, atol=rel)
        for one, other in zip(left, right, strict=True)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(
    ("ours", "algorithm", "value"),
    [(ClipGradNorm(0.1), "norm", 0.1), (ClipGradValue(0.02), "value", 0.02)],
)
def test_it_trains_as_lightnings_own(ours: Any, algorithm: str, value: float) -> None:
    lightnings = fit(gradient_clip_val=value, gradient_clip_algorithm=algorithm)
    assert equal(fit(ours), lightnings)
    assert not equal(fit(), lightnings)


def test_a_penalty_is_inside_the_clip_in_any_order() -> None:
    first, last = fit(Adds(5.0), ClipGradNorm(0.1)), fit(ClipGradNorm(0.1), Adds(5.0))
    assert equal(first, last, rel=0)
    for step in first:
        assert math.sqrt(sum(float(g.square().sum()) for g in step)) == pytest.approx(0.1, rel=1e-4)


def test_the_modules_own_clipping_comes_first_or_is_replaced() -> None:
    own = fit(module=OwnClipping)
    assert max(float(g.abs().max()) for step in own for g in step) <= 0.01
    assert equal(fit(ClipGradNorm(1e6), module=OwnClipping), own)
    both = fit(ClipGradNorm(1e-3), module=OwnClipping)
    for step in both:
        assert math.sqrt(sum(float(g.square().sum()) for g in step)) == pytest.approx(
            1e-3, rel=5e-3
        )
    assert equal(fit(ClipGradNorm(0.1, replace=True), module=OwnClipping), fit(ClipGradNorm(0.1)))
    assert equal(fit(ClipGradNorm(math.inf, replace=True), module=OwnClipping), fit(), rel=0)


@pytest.mark.parametrize("fused", [False, True])
def test_16_bit_and_fused_optimizers(fused: bool) -> None:
    module = type("Fused", (Net,), {"fused": fused})
    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    seen = fit(ClipGradNorm(0.1), module=module, plugins=[plugin])
    assert len(seen) == 4
    for step in seen:
        assert math.sqrt(sum(float(g.square().sum()) for g in step)) == pytest.approx(0.1, rel=1e-3)


def test_zero_gradient_clip_val_is_no_conflict() -> None:
    assert equal(fit(ClipGradNorm(0.1), gradient_clip_val=0), fit(ClipGradNorm(0.1)))


def test_two_clippings_are_refused() -> None:
    with pytest.raises(ConflictError, match=r"ClipGradNorm.*QuantileClip|QuantileClip.*ClipGradN"):
        fit(ClipGradNorm(0.1), QuantileClip())


def test_what_is_logged(tmp_path: Any) -> None:
    class Grows(Net):
        """Its gradients are the batch index, in each of its 66 elements."""

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return sum(p.sum() for p in self.parameters()) * float(batch_idx)

    norm, value = tmp_path / "norm", tmp_path / "value"
    fit(ClipGradNorm(12.0), module=Grows, logger=CSVLogger(norm), log_every_n_steps=4)
    (row,) = logged(norm, "grad_norm")
    assert row["grad_norm"] == pytest.approx(3 * math.sqrt(66), rel=1e-5)
    assert row["clipped_share"] == pytest.approx(2 / 4)  # norms 0, 8.1, 16.2 and 24.4

    fit(ClipGradValue(2.5), module=Grows, logger=CSVLogger(value), log_every_n_steps=1)
    assert [row["clipped_share"] for row in logged(value, "clipped_share")] == [0, 0, 0, 1]


def test_sparse_and_complex_gradients_are_clipped_by_norm() -> None:
    ours, torchs = (
        [nn.Parameter(torch.ones(4, 2)), nn.Parameter(torch.ones(3, dtype=torch.complex64))]
        for _ in range(2)
    )
    for parameters in (ours, torchs):
        indices, values = torch.tensor([[0, 2, 2]]), torch.full((3, 2), 3.0)
        parameters[0].grad = torch.sparse_coo_tensor(indices, values, (4, 2))
        parameters[1].grad = torch.full((3,), 3.0 + 4.0j)
    clip_by_norm_(ours, 1.0)
    norm = math.sqrt(2 * 9 + 2 * 36 + 3 * 25)  # the two entries of row 2 are one
    torch.testing.assert_close(grads(ours)[0].to_dense()[0], torch.full((2,), 3.0 / norm))
    torch.testing.assert_close(grads(ours)[1], torch.full((3,), (3.0 + 4.0j) / norm))


class Embeds(Net):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 2, sparse=True)


class Turns(Net):
    def __init__(self) -> None:
        super().__init__()
        self.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))


@pytest.mark.parametrize(("module", "named"), [(Embeds, "sparse=True"), (Turns, "complex")])
def test_what_cannot_be_clipped_is_refused(module: type[Net], named: str) -> None:
    with pytest.raises(TechniqueError, match=named):
        fit(ClipGradValue(1.0), module=module)


class GoesAround(Net):
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:
        closure()
        optimizer.optimizer.step()


def test_a_step_that_goes_around_lightning_is_told() -> None:
    with pytest.raises(TechniqueError, match="optimizer_step of GoesAround"):
        fit(ClipGradNorm(1.0), module=GoesAround)
