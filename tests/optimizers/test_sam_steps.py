"""SAM around training steps that do more than compute a loss."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_dlopt import SAM, FreezeLayers, TechniqueError, perturb_weights
from lightning_dlopt.optimizers import freeze_layers
from tests.optimizers import toy
from tests.optimizers.toy import Toy, fit


def test_a_step_that_takes_the_iterator_is_refused() -> None:
    class TakesIterator(Toy):
        def training_step(self, dataloader_iter: Any) -> Any:  # type: ignore[override]
            return super().training_step(next(dataloader_iter)[0], 0)

    with pytest.raises(TechniqueError, match="dataloader_iter"):
        fit(toy.toy(TakesIterator), SAM())


class HasTeacher(Toy):
    """A momentum teacher, moved in the training step."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        with torch.no_grad():
            for one, other in zip(self.teacher.parameters(), self.net.parameters(), strict=True):
                one.mul_(0.5).add_(other, alpha=0.5)
        return super().training_step(batch, batch_idx) + functional.mse_loss(
            self.net(batch[0]), self.teacher(batch[0])
        )

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


def test_a_teacher_moves_once_and_towards_the_weights() -> None:
    ours, reference = toy.toy(HasTeacher), toy.toy(HasTeacher)
    for module in (ours, reference):
        for parameter in module.teacher.parameters():
            parameter.zero_()
    fit(ours, SAM(0.5))
    weights, optimizer = list(reference.net.parameters()), reference.configure_optimizers()
    for batch in toy.batches():
        before = copy.deepcopy(reference.teacher.state_dict())
        gradients = torch.autograd.grad(reference.training_step(batch, 0), weights)
        recorded = copy.deepcopy(reference.teacher.state_dict())
        reference.teacher.load_state_dict(before)
        kept = [weight.detach().clone() for weight in weights]
        norm = sum(gradient.square().sum() for gradient in gradients).sqrt()
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight += 0.5 * gradient / norm
        optimizer.zero_grad()
        reference.training_step(batch, 0).backward()
        reference.teacher.load_state_dict(recorded)
        for weight, value in zip(weights, kept, strict=True):
            weight.data.copy_(value)
        optimizer.step()
    toy.assert_close(ours, reference.state_dict())


@pytest.mark.parametrize("first", [True, False])
def test_what_is_frozen_under_ddp_is_not_moved(first: bool, monkeypatch: Any) -> None:
    class Watches(Toy):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.start = [layer.weight.detach().clone() for layer in (self.net[0], self.net[3])]

        def on_before_backward(self, loss: Any) -> None:
            assert torch.equal(self.net[0].weight, self.start[0]) == (self.global_step < 3)
            assert not torch.equal(self.net[3].weight, self.start[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    # as under DDP, where requires_grad is left as it is
    monkeypatch.setattr(freeze_layers, "strategy_kind", lambda _: "replicated")
    callbacks = [SAM(0.5), FreezeLayers("net.0", until=3)]
    fit(toy.toy(Watches), *(callbacks if first else callbacks[::-1]))


class ValidatesByTraining(Toy):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        weight = self.net[0].weight.detach().clone()
        with torch.enable_grad():
            self.log("val_loss", self.training_step(batch, batch_idx))
        assert torch.equal(self.net[0].weight, weight)


@pytest.mark.parametrize("inference_mode", [True, False])
def test_a_validation_step_that_calls_it_gets_one_pass(inference_mode: bool) -> None:
    class Plain(ValidatesByTraining):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", functional.mse_loss(self.net(batch[0]), batch[1]))

    losses = []
    for cls in (ValidatesByTraining, Plain):
        trainer = toy.Trainer(
            **toy.QUIET,
            devices=1,
            max_epochs=1,
            inference_mode=inference_mode,
            callbacks=[SAM(0.5)],
        )
        trainer.fit(toy.toy(cls), toy.loader(), toy.loader())
        losses.append(trainer.callback_metrics["val_loss"])
    assert torch.equal(*losses)


class TakesApart(Toy):
    """Edits its batch in every way."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        batch = {"input": batch[0], "rest": batch} if isinstance(batch, list) else batch
        batch["input"].sub_(1.0)
        batch["input"] = batch["input"] * 2
        target = batch["rest"].pop()
        batch["rest"].clear()
        return functional.mse_loss(self.net(batch.pop("input")), target)


class Copies(Toy):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(((batch[0] - 1) * 2, batch[1]), batch_idx)


def test_the_second_pass_gets_the_batch_as_it_was() -> None:
    ours, reference = toy.toy(TakesApart), toy.toy(Copies)
    fit(ours, SAM(0.5))
    fit(reference, SAM(0.5))
    for name, value in reference.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize("optimizer", [None, torch.optim.SGD])
def test_nothing_to_train_is_refused(optimizer: Any) -> None:
    class Nothing(Toy):
        def configure_optimizers(self) -> Any:
            return optimizer and optimizer([nn.Parameter(torch.zeros(1), requires_grad=False)], 0.1)

    with pytest.raises(TechniqueError, match="no optimizer of Nothing trains a parameter"):
        fit(toy.toy(Nothing), SAM())


def test_layers_that_are_made_by_the_first_batch() -> None:
    class Lazy(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.LazyLinear(2))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module = toy.toy(Lazy)
    fit(module, SAM(0.5))
    assert int(module.net[1].num_batches_tracked) == toy.STEPS


def test_complex_weights_move_uphill_by_their_own_size() -> None:
    weight = torch.tensor([1 + 2j, -0.5j])
    gradient = torch.tensor([0.3 - 0.1j, 2 + 1j])
    (moved,) = perturb_weights([weight], [gradient], 0.1, adaptive=True)
    scale = 0.1 / (weight.abs() * gradient.abs()).norm()
    torch.testing.assert_close(moved, weight + scale * weight.abs().square() * gradient)


class Meter:
    count = 0


def test_what_is_recorded_twice_and_what_once() -> None:
    class Counts(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.once, self.listed, self.nested = 0, [], {"train": []}
            self.items, self.meter = iter(range(100)), Meter()
            self.own = torch.Generator().manual_seed(1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.once += 1
            self.listed.append(next(self.items))
            self.nested["train"].append(batch_idx)
            self.meter.count += 1
            torch.rand((), generator=self.own)
            return super().training_step(batch, batch_idx)

    module, steps = toy.toy(Counts), toy.STEPS
    fit(module, SAM(0.5))
    assert module.once == len(module.listed) == steps
    assert module.listed == list(range(0, 2 * steps, 2))
    assert len(module.nested["train"]) == module.meter.count == 2 * steps
    twin = torch.Generator().manual_seed(1)
    for _ in range(2 * steps):
        torch.rand((), generator=twin)
    assert torch.equal(torch.rand((), generator=twin), torch.rand((), generator=module.own))
