"""SAM against loops written by hand."""

import random
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from lightning_dlopt import EMA, SAM, Lookahead, Technique, perturb_weights
from tests.quiet import QUIET

RHO = 0.3


class Module(LightningModule):
    """Dropout, a batch norm, a counter, a metric, a frozen and an unused parameter."""

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Dropout(0.3), nn.Linear(7, 1)
        )
        self.net[1].bias.requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(2))
        self.mean = MeanMetric()
        self.calls = 0
        self.fused = fused

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        self.calls += 1
        return functional.mse_loss(self.net(x), y * random.uniform(0.9, 1.1))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.mean.update(loss.detach())
        self.log("loss", loss, on_step=True, on_epoch=True)
        return {"loss": loss, "calls": self.calls, "value": loss.item()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, fused=self.fused)


def batches(number: int = 6) -> list[Any]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(8, 5, generator=generator), torch.randn(8, 1, generator=generator))
        for _ in range(number)
    ]


def fit(
    module: LightningModule, *callbacks: Any, number: int = 6, epochs: int = 1, **settings: Any
) -> Trainer:
    trainer = Trainer(
        **{**QUIET, **settings}, callbacks=list(callbacks), max_epochs=epochs, devices=1
    )
    random.seed(1)
    torch.manual_seed(1)
    trainer.fit(module, DataLoader(TensorDataset(*map(torch.cat, zip(*batches(number)))), 8))  # noqa: B905
    return trainer


def by_hand(
    module: Module, *, adaptive: bool = False, every: int = 1, accumulate: int = 1, number: int = 6
) -> list[float]:
    """Train with SAM as the paper writes it; return the losses of the first passes."""
    optimizer, losses = module.configure_optimizers(), []
    trained = [p for p in module.net.parameters() if p.requires_grad]
    random.seed(1)
    torch.manual_seed(1)
    DataLoader([0]).__iter__()  # a loader draws a seed for its workers
    for index, batch in enumerate(batches(number)):
        draws = torch.get_rng_state(), random.getstate()
        loss = module.loss(batch)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss / accumulate, trained)
        saved = [p.detach().clone() for p in trained]
        if (index // accumulate) % every == 0:
            scaled = [g * p.abs() if adaptive else g for g, p in zip(gradients, saved, strict=True)]
            norm = sum(g.square().sum() for g in scaled).sqrt()
            with torch.no_grad():
                for p, g in zip(trained, gradients, strict=True):
                    p += RHO * (p.square() * g if adaptive else g) / norm
            statistics = {k: v.clone() for k, v in module.state_dict().items() if "running" in k}
            torch.set_rng_state(draws[0])
            random.setstate(draws[1])
            gradients = torch.autograd.grad(module.loss(batch) / accumulate, trained)
            module.load_state_dict(statistics, strict=False)
            module.net[1].num_batches_tracked -= 1
        for p, before, g in zip(trained, saved, gradients, strict=True):
            p.data.copy_(before)
            p.grad = g if p.grad is None else p.grad + g
        if (index + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
    return losses


def assert_same(one: Module, other: Module, **tolerance: float) -> None:
    for name, value in one.net.state_dict().items():
        torch.testing.assert_close(value, other.net.state_dict()[name], msg=name, **tolerance)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_is_the_papers(adaptive: bool, every: int, accumulate: int) -> None:
    ours, reference, plain = Module(), Module(), Module()
    fit(ours, SAM(RHO, adaptive, every), accumulate_grad_batches=accumulate)
    by_hand(reference, adaptive=adaptive, every=every, accumulate=accumulate)
    assert_same(ours, reference, rtol=1e-5, atol=1e-6)
    fit(plain, accumulate_grad_batches=accumulate)
    assert (ours.net[0].weight - plain.net[0].weight).abs().max() > 1e-3


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_mixed_precision_moves_the_weights_it_computes_with(precision: Any, fused: bool) -> None:
    ours, reference, plain = Module(fused), Module(), Module()
    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0) if precision == "16-mixed" else None
    plugin = MixedPrecision(precision, "cpu", scaler)
    fit(ours, SAM(RHO), plugins=[plugin])
    by_hand(reference)
    fit(plain, plugins=[MixedPrecision(precision, "cpu", scaler)])
    gap = (plain.net[0].weight - reference.net[0].weight).norm()
    assert (ours.net[0].weight - reference.net[0].weight).norm() < 0.2 * gap


def test_weights_remembered_in_16_bits_are_forgotten() -> None:
    class Casts(Module):
        def loss(self, batch: Any) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=True):  # Lightning's: False
                return super().loss(batch)

    ours, reference, plain = Casts(), Module(), Module()
    fit(ours, SAM(RHO), precision="bf16-mixed")
    by_hand(reference)
    fit(plain)
    gap = (plain.net[0].weight - reference.net[0].weight).norm()
    assert (ours.net[0].weight - reference.net[0].weight).norm() < 0.2 * gap


def test_small_gradients_do_not_vanish_in_16_bits() -> None:
    class Tiny(Module):
        def loss(self, batch: Any) -> Tensor:
            return super().loss(batch) * 1e-7

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e6, momentum=0.9)

    ours, reference = Tiny(), Tiny()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    fit(ours, SAM(RHO), plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    by_hand(reference)
    assert_same(ours, reference, rtol=0.05, atol=0.02)


def test_what_is_recorded_comes_from_the_first_pass() -> None:
    class Outputs(Technique):
        seen: ClassVar[list[Any]] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            self.seen.append(outputs)

    ours, reference, watcher = Module(), Module(), Outputs()
    trainer = fit(ours, SAM(RHO), watcher)
    losses = by_hand(reference)
    assert ours.calls == 6
    assert float(ours.mean.compute()) == pytest.approx(sum(losses) / 6)
    assert float(trainer.callback_metrics["loss_epoch"]) == pytest.approx(sum(losses) / 6)
    assert float(trainer.callback_metrics["loss_step"]) == pytest.approx(losses[-1])
    assert int(ours.net[1].num_batches_tracked) == 6
    assert [output["calls"] for output in watcher.seen] == [1, 2, 3, 4, 5, 6]
    assert [output["value"] for output in watcher.seen] == pytest.approx(losses)
    assert all(output["loss"] > output["value"] for output in watcher.seen)


class Halves(Technique):
    """Another technique: halves the loss, and counts how often."""

    def prepare(self, trainer: Any, pl_module: Any) -> None:
        self.calls = 0

        def wrap(original: Any) -> Any:
            def halved(*args: Any) -> Any:
                self.calls += 1
                return original(*args)["loss"] / 2

            return halved

        self.patch(pl_module, "training_step", wrap)


@pytest.mark.parametrize("first", [True, False])
def test_it_lies_around_other_techniques_in_any_order(first: bool) -> None:
    ours, reference, halves = Module(), Module(), Halves()
    reference.loss = lambda batch: Module.loss(reference, batch) / 2  # type: ignore[method-assign]
    fit(ours, *([SAM(RHO), halves] if first else [halves, SAM(RHO)]))
    by_hand(reference)
    assert halves.calls == 12
    assert_same(ours, reference, rtol=1e-5, atol=1e-6)


def test_an_exception_in_the_second_pass_leaves_the_weights_and_state() -> None:
    class Fails(Module):
        # of the class, which SAM doesn't look into
        passes = 0
        at_failure: Tensor

        def loss(self, batch: Any) -> Tensor:
            type(self).passes += 1
            loss = super().loss(batch)
            if self.passes == 4:
                type(self).at_failure = self.net[0].weight.detach().clone()
                raise ZeroDivisionError
            return loss

    ours, reference = Fails(), Module()
    sam = SAM(RHO)
    with pytest.raises(ZeroDivisionError):
        fit(ours, sam)
    by_hand(reference, number=1)
    torch.testing.assert_close(ours.net[0].weight, reference.net[0].weight)
    assert not torch.equal(ours.net[0].weight, ours.at_failure)
    assert ours.calls == int(ours.net[1].num_batches_tracked) == 2
    assert "training_step" not in vars(ours)
    assert "log" not in vars(ours)


def test_an_exception_in_backward_leaves_the_weights() -> None:
    class Fails(Module):
        def on_before_zero_grad(self, optimizer: Any) -> None:
            self.start = self.net[0].weight.detach().clone()

        def backward(self, loss: Tensor, *args: Any) -> None:
            raise ZeroDivisionError

    module = Fails()
    before = module.net[0].weight.detach().clone()
    with pytest.raises(ZeroDivisionError):
        fit(module, SAM(RHO))
    assert torch.equal(module.net[0].weight, before)
    assert not torch.equal(module.start, before)


def test_a_gradient_that_is_not_finite_shows() -> None:
    class Overflows(Module):
        def loss(self, batch: Any) -> Tensor:
            return super().loss(batch) + (self.net[0].weight * 0).sum().sqrt()

    module = Overflows()
    fit(module, SAM(RHO))
    assert module.net[0].weight.isnan().all()


def test_activations_that_are_recomputed() -> None:
    class Recomputes(Module):
        def loss(self, batch: Any) -> Tensor:
            self.calls += 1
            hidden = checkpoint(self.net[:3], batch[0], use_reentrant=False)
            target = batch[1] * random.uniform(0.9, 1.1)
            return functional.mse_loss(self.net[3:](hidden), target)

    ours, reference = Recomputes(), Module()
    fit(ours, SAM(RHO))
    by_hand(reference)
    for name, value in ours.net.named_parameters():
        torch.testing.assert_close(value, reference.net.get_parameter(name), msg=name)


def test_it_stands_beside_the_other_averages() -> None:
    ours, reference = Module(), Module()
    fit(ours, EMA(0.0001), Lookahead(1, 0.9999), SAM(RHO))
    by_hand(reference)
    assert_same(ours, reference, rtol=0.01, atol=0.01)


def test_optimizers_that_call_their_closure_several_times() -> None:
    class Newton(Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(5, 1))

        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.net.parameters(), lr=0.1, max_iter=3)

    ours, plain = Newton(), Newton()
    fit(ours, SAM(RHO))
    fit(plain)
    assert ours.calls == plain.calls
    assert not torch.equal(ours.net[0].weight, plain.net[0].weight)


def test_the_pure_function() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(3, 2, generator=generator), torch.randn(4, generator=generator)]
    gradients = [torch.randn(3, 2, generator=generator), torch.randn(4, generator=generator)]
    kept = [g.clone() for g in gradients]
    moved = perturb_weights(weights, gradients, 2.0)
    steps = torch.cat([(m - w).flatten() for m, w in zip(moved, weights, strict=True)])
    assert float(steps.norm()) == pytest.approx(2.0)
    torch.testing.assert_close(perturb_weights(weights, [7 * g for g in gradients], 2.0), moved)
    adaptive = perturb_weights(weights, gradients, 2.0, adaptive=True)
    steps = torch.cat([((m - w) / w).flatten() for m, w in zip(adaptive, weights, strict=True)])
    assert float(steps.norm()) == pytest.approx(2.0)
    # scaling a weight up and its gradient down, as a rescaled network would, changes nothing
    rescaled = perturb_weights(
        [3 * weights[0], weights[1]], [gradients[0] / 3, gradients[1]], 2.0, adaptive=True
    )
    torch.testing.assert_close(rescaled[0] / 3, adaptive[0])
    assert all(torch.equal(a, b) for a, b in zip(gradients, kept, strict=True))
    assert perturb_weights(weights, [torch.zeros_like(w) for w in weights])[0].equal(weights[0])
    assert perturb_weights([], []) == []
    halves = [w.bfloat16() for w in weights]
    assert perturb_weights(halves, [g.bfloat16() for g in gradients])[0].dtype == torch.bfloat16
