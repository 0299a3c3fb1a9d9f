"""Elastic Net as a callback."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional

from lightning_dlopt import L1, L2, ElasticNet, NoEffectWarning
from tests.quiet import QUIET
from tests.regularization.regression import Regression, fit, loader

SGD = partial(torch.optim.SGD, lr=0.05)


def test_the_subgradient_form_is_lasso_and_ridge_together() -> None:
    ours = fit(Regression(), [ElasticNet(0.02, 0.03)])
    both = fit(Regression(), [L1(0.02), L2(0.03)])
    in_the_loss = fit(Regression(l1=0.02, l2=0.03))
    for left, right, third in zip(
        ours.parameters(), both.parameters(), in_the_loss.parameters(), strict=True
    ):
        torch.testing.assert_close(left, right)
        torch.testing.assert_close(left, third)


def test_the_proximal_form_is_the_hand_written_loop() -> None:
    ours = fit(Regression(make=SGD), [ElasticNet(0.2, 0.3, method="proximal")])
    theirs = Regression()
    for _ in range(2):
        for x, y in loader():
            theirs.zero_grad()
            functional.mse_loss(theirs.net(x), y).backward()
            with torch.no_grad():
                for p in theirs.parameters():
                    assert p.grad is not None
                    p -= 0.05 * p.grad
                    if p.dim() > 1:
                        shrunk = (p.abs() - 0.05 * 0.2).clamp(min=0) * p.sign()
                        p.copy_(shrunk / (1 + 2 * 0.05 * 0.3))
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(left, right)
        assert torch.equal(left == 0, right == 0)


def test_lasso_finds_the_features_that_matter() -> None:
    # a linear model in which 3 of 20 features count: the proximal form keeps those alone
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(256, 20, generator=generator)
    truth = torch.zeros(20)
    truth[[1, 7, 12]] = torch.tensor([2.0, -1.0, 0.5])
    y = x @ truth + 0.1 * torch.randn(256, generator=generator)

    class Linear(Regression):
        def __init__(self) -> None:
            super().__init__(make=SGD)
            self.net = torch.nn.Linear(20, 1, bias=False)  # type: ignore[assignment]

    class Whole:
        """The whole data, again and again."""

        def __iter__(self) -> Iterator[Any]:
            return iter([(x, y[:, None])] * 300)

    module = Linear()
    Trainer(**QUIET, max_epochs=1, callbacks=[L1(0.1, method="proximal")]).fit(module, Whole())
    found = module.net.weight.detach()[0]
    assert torch.equal(found != 0, truth != 0)
    # lasso's known bias: each is nearer to 0 by about strength / 2
    torch.testing.assert_close(found, truth - 0.05 * truth.sign(), rtol=0, atol=0.03)


@pytest.mark.parametrize("method", ["subgradient", "proximal"])
def test_no_strength_is_told(method: str) -> None:
    with pytest.warns(NoEffectWarning, match="strength is 0"):
        fit(Regression(), [ElasticNet(0.0, 0.0, method=method)])
