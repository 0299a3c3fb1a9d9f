"""What the penalties refuse, and that nothing is left behind then."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import nn

from lightning_dlopt import L1, L2, ElasticNet, TechniqueError
from lightning_dlopt.regularization import penalty_base
from tests.regularization.regression import Regression, assert_close, fit

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def test_a_pattern_that_matches_nothing_is_an_error_before_the_first_step() -> None:
    module = Regression()
    before = module.net[0].weight.detach().clone()
    with pytest.raises(ValueError, match=r"L1\(.*'head.\*'"):
        fit(module, [L1(0.1, ["head.*"])])
    assert torch.equal(module.net[0].weight, before)


class Sparse(Regression):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 2, sparse=True)


def test_sparse_gradients_are_refused() -> None:
    with pytest.raises(TechniqueError, match="table gives sparse gradients"):
        fit(Sparse(), [L1(0.1)])
    fit(Sparse(), [L1(0.1, ["net.*.weight"])])
    fit(Sparse(), [L1(0.1, method="proximal")])


def test_sparse_gradients_from_elsewhere_are_refused_at_the_first_step() -> None:
    class Functional(Regression):
        def __init__(self) -> None:
            super().__init__(make=partial(torch.optim.SGD, lr=0.1))
            self.table = nn.Parameter(torch.ones(4, 2))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            rows = nn.functional.embedding(torch.tensor([1]), self.table, sparse=True)
            return super().training_step(batch, batch_idx) + rows.sum()

    module = Functional()
    with pytest.raises(TechniqueError, match=r"L1\(.*is sparse"):
        fit(module, [L1(0.1)])
    assert torch.equal(module.table, torch.ones(4, 2))


def test_an_optimizer_that_maximizes_is_refused() -> None:
    make = partial(SGD, maximize=True)
    with pytest.raises(TechniqueError, match="maximize=True"):
        fit(Regression(make=make), [L1(0.1)])


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy])
def test_strategies_that_hide_the_parameters_are_refused(strategy: Any) -> None:
    trainer: Any = SimpleNamespace(
        strategy=strategy.__new__(strategy), optimizers=[], callbacks=[technique := L1(0.1)]
    )
    with pytest.raises(TechniqueError, match=strategy.__name__):
        technique.on_fit_start(trainer, Regression())


def test_two_proximal_penalties_of_one_weight_are_refused() -> None:
    both = [L1(0.1, method="proximal"), L1(0.2, ["net.0.weight"], method="proximal")]
    with pytest.raises(TechniqueError, match="use one ElasticNet"):
        fit(Regression(), both)
    apart = [L1(0.1, [f"net.{i}.weight"], method="proximal") for i in (0, 2)]
    assert_close(fit(Regression(), apart), fit(Regression(), [L1(0.1, method="proximal")]))
    fit(Regression(), [L1(0.1, method="proximal"), L2(0.1)])


def test_an_optimizer_without_a_rate_is_refused_in_the_proximal_form() -> None:
    class Rateless(torch.optim.SGD):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, lr=0.1)
            del self.param_groups[0]["lr"]

    with pytest.raises(TechniqueError, match=r"has none \('lr'\)"):
        fit(Regression(make=Rateless), [L1(0.1, method="proximal")])


@pytest.mark.parametrize("kind", [L1, partial(ElasticNet, l2=0.1)])
def test_a_schedule_free_optimizer_is_refused_in_the_proximal_form(kind: Any) -> None:
    class Switching(torch.optim.SGD):
        def train(self) -> None: ...

        def eval(self) -> None: ...

    make = partial(Switching, lr=0.1)
    with pytest.raises(TechniqueError, match="Switching steps with other weights"):
        fit(Regression(make=make), [kind(0.1, method="proximal")])
    fit(Regression(make=make), [kind(0.1)])


def test_hooks_are_gone_after_an_error() -> None:
    class Crashes(Regression):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 2:
                raise ZeroDivisionError
            return super().training_step(batch, batch_idx)

    optimizers: list[Any] = []

    def make(parameters: Any) -> Any:
        optimizers.append(SGD(parameters))
        return optimizers[-1]

    with pytest.raises(ZeroDivisionError):
        fit(Crashes(make=make), [L1(0.1, method="proximal")])
    assert not optimizers[0]._optimizer_step_post_hooks


def test_a_compiler_that_fails_is_told_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(tensors: Any) -> None:
        raise OSError("no compiler")

    monkeypatch.setattr(penalty_base, "try_kernels", fail)
    with pytest.raises(TechniqueError, match=r"torch.compile failed .*compile=False"):
        fit(Regression(), [L1(0.1, compile=True)])
    # how it is computed is no part of what is resumed
    assert L1(0.1, compile=True).state_key == L1(0.1).state_key
