"""Draws of single layers: which calls draw alike, and which don't."""

import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from lightning_dlopt.core import NoEffectWarning, TechniqueError
from lightning_dlopt.core.layer_technique import LayerTechnique, in_backward_pass, noise
from tests.quiet import QUIET


class Noisy(LayerTechnique):
    """Multiplies what comes out of the module's layers by zeros and ones."""

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        def change(index: int, x: Tensor) -> Tensor:
            self.drawn.append(noise(x, 0.5, self.draw(trainer, index, x.device)))
            return x * self.drawn[-1]

        self.drawn: list[Tensor] = []
        self.take(trainer, [("a", pl_module.a), ("b", pl_module.b)], change)


class Module(LightningModule):
    """Two layers of 64 values."""

    def __init__(self, step: Any, *, automatic: bool = True) -> None:
        super().__init__()
        self.a, self.b = nn.Tanh(), nn.Tanh()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 64))
        self.step = step
        self.automatic_optimization = automatic
        self.gradients: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.step(self)

    def on_after_backward(self) -> None:
        assert self.weight.grad is not None
        self.gradients.append(self.weight.grad.clone())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Wave(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


def run(step: Any, batches: int = 1, **arguments: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Return the draws and the gradients."""
    technique, module = Noisy(), Module(step)
    loader: Any = DataLoader(range(batches))  # type: ignore[arg-type]
    trainer = Trainer(**QUIET, callbacks=[technique], max_epochs=1, devices=1, **arguments)
    trainer.fit(module, loader)
    return technique.drawn, module.gradients


def once(module: Any) -> Tensor:
    return module.b(module.a(module.weight)).sum()  # type: ignore[no-any-return]


def all_differ(tensors: list[Tensor]) -> bool:
    return len({tuple(tensor.tolist()) for tensor in tensors}) == len(tensors)


def test_layers_batches_and_micro_batches_draw_apart() -> None:
    for accumulation in (1, 2):
        drawn, _ = run(once, batches=4, accumulate_grad_batches=accumulation)
        assert len(drawn) == 8
        assert all_differ(drawn)


@pytest.mark.parametrize("first", [0, 2])
def test_a_layer_may_be_called_in_later_batches_only(first: int) -> None:
    batches = iter(range(4))

    def later(module: Any) -> Tensor:
        return once(module) if next(batches) >= first else module.weight.sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        drawn, _ = run(later, batches=4)
    assert len(drawn) == 2 * (4 - first)
    with pytest.warns(NoEffectWarning, match="in its first epoch .* none of the layers.*: a, b"):
        run(lambda module: module.weight.sum(), batches=2)


def test_calls_of_one_layer_draw_apart() -> None:
    drawn, _ = run(lambda module: module.a(module.a(module.a(module.weight))).sum())
    assert len(drawn) == 3
    assert all_differ(drawn)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_recomputes_what_was_drawn(reentrant: bool) -> None:
    def checkpointed(module: Any) -> Tensor:
        first = checkpoint(module.a, module.weight * 1, use_reentrant=reentrant)
        both = checkpoint(lambda x: module.b(x).sin(), first, use_reentrant=reentrant)
        return both.sum()  # type: ignore[no-any-return]

    drawn, gradients = run(checkpointed, batches=3)
    plain, expected = run(lambda m: m.b(m.a(m.weight * 1)).sin().sum(), batches=3)
    assert len(drawn) == 2 * len(plain)
    assert all(torch.equal(*pair) for pair in zip(gradients, expected, strict=True))


def test_what_cannot_be_told_when_recomputed_is_refused() -> None:
    def twice(module: Any) -> Tensor:
        first = checkpoint(module.a, module.weight * 1, use_reentrant=False)
        return checkpoint(module.a, first, use_reentrant=False).sum()  # type: ignore[no-any-return]

    with pytest.raises(TechniqueError, match="a was called 2 times in this batch and is now rec"):
        run(twice)


def test_a_pass_repeated_after_rewinding_the_modules_attributes_draws_alike() -> None:
    def repeated(module: Any) -> Tensor:
        before = [dict(vars(layer)) for layer in (module.a, module.b)]
        torch.autograd.grad(once(module), module.weight)
        for layer, attributes in zip((module.a, module.b), before, strict=True):
            vars(layer).update(attributes)
        return once(module)

    drawn, _ = run(repeated, batches=2)
    for first in (0, 4):
        assert torch.equal(drawn[first], drawn[first + 2])
        assert torch.equal(drawn[first + 1], drawn[first + 3])
    assert all_differ([drawn[0], drawn[1], drawn[4], drawn[5]])


def test_a_second_pass_without_rewinding_draws_apart() -> None:
    drawn, _ = run(lambda module: once(module) + once(module))
    assert len(drawn) == 4
    assert all_differ(drawn)


def test_nothing_is_left_after_training_or_an_exception() -> None:
    def fails(module: Any) -> Tensor:
        once(module)
        raise ZeroDivisionError

    for step in (once, fails):
        module, technique = Module(step), Noisy()
        trainer = Trainer(**QUIET, callbacks=[technique], max_epochs=1, devices=1)
        try:
            trainer.fit(module, DataLoader(range(2)))  # type: ignore[arg-type]
        except ZeroDivisionError:
            assert step is fails
        assert vars(module.a).keys() == vars(nn.Tanh()).keys()
        assert technique.taken == ()


@pytest.mark.usefixtures("fresh_compiler")
def test_layers_of_a_compiled_part_stay_compiled() -> None:
    compiled: list[str] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    module, technique = Module(lambda module: module.both(module.weight).sum()), Noisy()
    module.a = Wave()
    module.both = nn.Sequential(module.a, module.b)
    module.both.compile(backend=backend)
    trainer = Trainer(**QUIET, callbacks=[technique], max_epochs=1, devices=1)
    trainer.fit(module, DataLoader(range(4)))  # type: ignore[arg-type]
    assert len(technique.drawn) == 8
    assert "sin" in " ".join(compiled)
    assert all_differ(technique.drawn)


def test_in_backward_pass() -> None:
    # torch has no public way to ask, so this fails when its private one changes
    seen = []
    weight = torch.ones(2, requires_grad=True)
    weight.register_hook(lambda _: seen.append(in_backward_pass()))
    weight.sum().backward()
    torch.autograd.grad(weight.sum(), weight)
    assert seen == [True, True]
    assert not in_backward_pass()


@pytest.mark.parametrize(("dims", "shape"), [(None, (4, 3, 2)), (2, (4, 3, 1)), (0, (1, 1, 1))])
def test_noise_has_the_dimensions_asked_for(dims: int | None, shape: tuple[int, ...]) -> None:
    drawn = noise(torch.ones(4, 3, 2, dtype=torch.float64), 0.5, None, dims)
    assert drawn.shape == shape
    assert drawn.dtype == torch.float64
