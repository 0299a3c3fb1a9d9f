"""L1 as a callback, against the penalty in the loss."""

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers.logger import DummyLogger
from torch import nn

from lightning_dlopt import L1, NoEffectWarning, TechniqueError
from lightning_dlopt.regularization import penalty_base
from tests.regularization.regression import Regression, assert_close, fit, loader

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


class Written(DummyLogger):
    """Keeps what the Trainer writes."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[int, Any] = {}

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.steps[step or 0] = dict(metrics)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 0.05},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        {"precision": "64-true"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "optimizer", [SGD, partial(torch.optim.Adam, lr=0.01)], ids=["SGD", "Adam"]
)
def test_trains_as_the_penalty_in_the_loss(arguments: Any, optimizer: Any) -> None:
    ours = fit(Regression(make=optimizer), [L1(0.03)], **arguments)
    theirs = fit(Regression(l1=0.03, make=optimizer), **arguments)
    assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_the_loss_scale_is_not_in_the_penalty(fused: bool) -> None:
    make = partial(SGD, fused=fused)
    ours = fit(Regression(make=make), [L1(0.03)], scale=1024.0)
    theirs = fit(Regression(l1=0.03, make=make))
    assert_close(ours, theirs, rtol=0.01, atol=2e-3)


class SkipsAfterTheFirst(Regression):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) if batch_idx == 0 else None


@pytest.mark.parametrize("method", ["subgradient", "proximal"])
def test_steps_without_a_loss_penalize_nothing(method: str) -> None:
    all_of_it = fit(SkipsAfterTheFirst(make=SGD), [L1(0.03, method=method)], max_epochs=1)
    first = fit(Regression(make=SGD), [L1(0.03, method=method)], max_steps=1)
    assert_close(all_of_it, first, rtol=0, atol=0)


class HalfUsed(Regression):
    """One of its weights is used in no loss."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.unused = nn.Linear(3, 3)
        self.never_stepped = nn.Linear(3, 3)

    def configure_optimizers(self) -> Any:
        return self.make([*self.net.parameters(), *self.unused.parameters()])


def test_a_weight_without_gradient_is_penalized_as_in_the_loss() -> None:
    ours, theirs = fit(HalfUsed(), [L1(0.03)]), fit(HalfUsed(l1=0.03))
    assert_close(ours, theirs)
    fresh = HalfUsed()
    assert not torch.equal(ours.unused.weight, fresh.unused.weight)
    assert torch.equal(ours.unused.bias, fresh.unused.bias)
    assert torch.equal(ours.never_stepped.weight, fresh.never_stepped.weight)
    assert ours.never_stepped.weight.grad is None


class Unfreezes(Callback):
    def __init__(self, add: bool) -> None:
        self.add = add

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.net[0].requires_grad_(False)
        if self.add:
            trainer.optimizers[0].param_groups[0]["params"] = list(pl_module.net[2].parameters())

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            pl_module.net[0].requires_grad_(True)
            if self.add:
                trainer.optimizers[0].add_param_group({"params": pl_module.net[0].parameters()})


@pytest.mark.parametrize("method", ["subgradient", "proximal"])
@pytest.mark.parametrize("add", [False, True])
def test_what_is_thawed_in_mid_run_is_penalized(method: str, add: bool) -> None:
    module = Regression(make=partial(torch.optim.SGD, lr=0.1))
    before = module.net[0].weight.detach().clone()
    strong = L1(1.0, ["net.0.weight"], method=method)
    with pytest.warns(UserWarning, match="selects none that is trained"):
        fit(module, [Unfreezes(add), strong], max_epochs=1)
    assert torch.equal(module.net[0].weight, before)
    with pytest.warns(UserWarning, match="selects none that is trained"):
        fit(module, [Unfreezes(add), strong], max_epochs=2)
    assert module.net[0].weight.abs().sum() < 0.7 * before.abs().sum()


@pytest.mark.parametrize(("method", "shares"), [("subgradient", False), ("proximal", True)])
def test_logs_at_the_interval_and_computes_at_no_other_step(
    monkeypatch: pytest.MonkeyPatch, method: str, shares: bool
) -> None:
    values: list[float] = []
    original = penalty_base.elastic_net_penalty

    def spy(*arguments: Any) -> Any:
        values.append(original(*arguments).item())
        return original(*arguments)

    monkeypatch.setattr(penalty_base, "elastic_net_penalty", spy)
    logger, seen = Written(), []

    class See(Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            weights = [pl_module.net[i].weight for i in (0, 2)]
            zeros = sum(int((w == 0).sum()) for w in weights) / 36
            seen.append((0.05 * sum(w.abs().sum().item() for w in weights), zeros))

    technique = L1(0.05, method=method)
    fit(Regression(), [technique, See()], logger=logger, log_every_n_steps=3, max_epochs=3)
    logged = {step: m for step, m in logger.steps.items() if "l1_penalty" in m}
    assert sorted(logged) == [2, 5, 8, 11]
    assert len(values) == 4
    for step, metrics in logged.items():
        expected = seen[step]
        assert metrics["l1_penalty"] == pytest.approx(expected[0], rel=1e-5)
        assert ("l1_zero_share" in metrics) == shares
        if shares:
            assert metrics["l1_zero_share"] == pytest.approx(expected[1])
    if shares:
        assert logged[2]["l1_zero_share"] > 0


class Toggles(Regression):
    """Two optimizers, each with the other's parameters frozen while it is at work."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.net[i].parameters(), lr=0.1) for i in (0, 2)]


def test_optimizers_that_are_toggled() -> None:
    logger, first = Written(), Toggles()
    expected = 0.05 * sum(first.net[i].weight.abs().sum().item() for i in (0, 2))
    fit(first, [L1(0.05)], logger=logger, log_every_n_steps=1)
    assert logger.steps[min(logger.steps)]["l1_penalty"] == pytest.approx(expected, rel=1e-5)
    theirs = Regression(l1=0.05)
    optimizers = [torch.optim.SGD(theirs.net[i].parameters(), lr=0.1) for i in (0, 2)]
    for _ in range(2):
        for batch in loader():
            for optimizer in optimizers:
                optimizer.zero_grad()
                theirs.training_step(batch, 0).backward()
                optimizer.step()
    assert_close(first, theirs)


def test_what_no_optimizer_has_is_told() -> None:
    with pytest.warns(NoEffectWarning, match="belongs to an optimizer"):
        fit(HalfUsed(), [L1(0.1, ["never_stepped.*"])])


@pytest.mark.parametrize("method", ["subgradient", "proximal"])
def test_what_is_all_frozen_when_training_starts_is_told_once(method: str) -> None:
    class Freezing(Regression):
        def on_train_start(self) -> None:
            self.net[0].weight.requires_grad_(False)

    with pytest.warns(NoEffectWarning, match="all frozen") as warned:
        fit(Freezing(), [L1(0.1, ["net.0.weight"], method=method)])
    assert sum("all frozen" in str(one.message) for one in warned) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        fit(Freezing(), [L1(0.1, ["net.*.weight"], method=method)])


def test_an_optimizer_that_takes_no_hooks_is_penalized_by_the_gradient_alone() -> None:
    class Foreign(torch.optim.SGD):
        def register_step_pre_hook(self, hook: Any) -> Any:
            raise AttributeError

    make = partial(Foreign, lr=0.1)
    assert_close(fit(Regression(make=make), [L1(0.01)]), fit(Regression(0.01, make=make)))
    with pytest.raises(TechniqueError, match="Foreign takes no step hooks"):
        fit(Regression(make=make), [L1(0.01, method="proximal")])


def test_two_of_a_class_add_up_and_log_apart() -> None:
    logger = Written()
    both = [L1(0.01, ["net.0.weight"]), L1(0.02, ["net.0.weight", "net.2.weight"])]
    ours = fit(Regression(), both, logger=logger, log_every_n_steps=1)
    assert {"l1_penalty", "l1_penalty_2"} <= set(logger.steps[0])
    theirs = fit(Regression(), [L1(0.03, ["net.0.weight"]), L1(0.02, ["net.2.weight"])])
    assert_close(ours, theirs)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_was_skipped_is_not_thresholded(fused: bool) -> None:
    module = Regression(make=partial(SGD, fused=fused))
    before = [p.detach().clone() for p in module.parameters()]
    strong = L1(0.5, method="proximal")
    fit(module, [strong], scale=2.0**60, max_steps=2)  # every gradient overflows
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    fit(module, [strong], scale=1.0, max_steps=2)
    assert (module.net[0].weight == 0).sum() > (before[0] == 0).sum()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["subgradient", "proximal"])
def test_compiled_training_is_the_same(method: str) -> None:
    class Wide(Regression):
        def __init__(self) -> None:
            super().__init__(make=partial(torch.optim.SGD, lr=0.1))
            self.net = nn.Sequential(nn.Linear(4, 9000), nn.Tanh(), nn.Linear(9000, 2))

    torch.manual_seed(0)
    ours = fit(Wide(), [L1(0.01, method=method, compile=True)])
    torch.manual_seed(0)
    theirs = fit(Wide(), [L1(0.01, method=method)])
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
