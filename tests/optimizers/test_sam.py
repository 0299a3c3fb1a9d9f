"""SAM against loops written by hand."""

import random
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lightning_dlopt import EMA, SAM, Lookahead, Technique, perturb_weights
from tests.optimizers.sharpness import RHO, Module, assert_same, by_hand, fit


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
