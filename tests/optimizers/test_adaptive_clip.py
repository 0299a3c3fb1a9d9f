import math
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from lightning_dlopt import AdaptiveClip
from lightning_dlopt.optimizers import adaptive_clip_
from lightning_dlopt.optimizers.adaptive_clip import last_layer
from tests.metrics_file import logged
from tests.quiet import QUIET


def by_hand(weight: Tensor, gradient: Tensor, factor: float, eps: float) -> Tensor:
    """Equation 3 of the paper, one unit after the other."""
    if weight.dim() <= 1:
        limit = factor * max(float(weight.norm()), eps)
        size = float(gradient.norm())
        return gradient * (limit / size if size > limit else 1.0)
    return torch.stack(
        [
            by_hand(w.reshape(-1), g.reshape(-1), factor, eps).view(g.shape)
            for w, g in zip(weight, gradient, strict=True)
        ]
    )


@pytest.mark.parametrize("factor", [1e-3, 0.3, 1.0, 30.0])
@pytest.mark.parametrize("channels_last", [False, True])
def test_it_is_the_papers_equation(factor: float, channels_last: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [
        (),
        (4,),
        (4, 4),
        (3, 4),
        (4, 1),
        (8, 3, 3, 3),
        (128, 200),
        (1000,),
        (2, 3, 4),
        (0, 4),
    ]
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    unused = nn.Parameter(torch.ones(3))
    for parameter in parameters:
        if channels_last and parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 3
    before = [p.grad.clone() for p in parameters]
    factors = adaptive_clip_([*parameters, unused], factor, 1e-3)
    for parameter, gradient in zip(parameters, before, strict=True):
        if gradient.numel():
            expected = by_hand(parameter.detach(), gradient, factor, 1e-3)
            torch.testing.assert_close(parameter.grad, expected)
    assert sum(f.numel() for f in factors) == 1 + 1 + 4 + 3 + 4 + 8 + 128 + 1 + 2
    assert unused.grad is None


def test_many_small_tensors_are_clipped_each_by_its_own_unit() -> None:
    generator = torch.Generator().manual_seed(1)
    parameters = [nn.Parameter(torch.randn(5, 5, generator=generator)) for _ in range(50)]
    for parameter in parameters:
        parameter.grad = torch.randn(5, 5, generator=generator)
    before = [p.grad.clone() for p in parameters]
    adaptive_clip_(parameters, 0.5)
    for parameter, gradient in zip(parameters, before, strict=True):
        torch.testing.assert_close(parameter.grad, by_hand(parameter.detach(), gradient, 0.5, 1e-3))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("shape", [(2, 3), (200, 200)])
def test_what_is_not_finite_is_not_hidden(poison: float, shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.ones(shape))
    weight.grad = torch.ones(shape)
    weight.grad[0, 0] = poison
    adaptive_clip_([weight], 0.1)
    assert not weight.grad[0].isfinite().all()
    assert weight.grad[1].isfinite().all()


class Quadratic(BoringModel):
    """Pulls two layers, which start at zero, towards one."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 2), nn.Linear(2, 2)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        del self.layer

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return sum((p - 1).square().sum() for p in self.parameters())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(*callbacks: Any, steps: int = 20, **arguments: Any) -> Quadratic:
    module = Quadratic()
    settings: dict[str, Any] = {**QUIET, "limit_val_batches": 0, **arguments}
    Trainer(callbacks=[*callbacks], max_steps=steps, devices=1, **settings).fit(module)
    return module


def test_weights_that_start_at_zero_train() -> None:
    module = train(AdaptiveClip(1.0), steps=100)
    assert all(p.min() > 0.1 for p in module.parameters())
    # the first step goes exactly as far as eps allows: each unit's gradient has norm eps
    first = train(AdaptiveClip(1.0, eps=1e-2), steps=1)
    assert float(first.body.weight[0].norm()) == pytest.approx(0.1 * 1e-2)
    assert float(first.body.bias.norm()) == pytest.approx(0.1 * 1e-2)


def test_the_last_layer_is_left_out_on_request() -> None:
    module = train(AdaptiveClip(1e-3, exclude_last=True), steps=1)
    torch.testing.assert_close(module.head.weight, torch.full((2, 2), 0.2))
    torch.testing.assert_close(module.head.bias, torch.full((2,), 0.2))
    assert module.body.weight.max() < 1e-3


def test_name_patterns_choose() -> None:
    module = train(AdaptiveClip(1e-3, parameters=["head.*"]), steps=1)
    torch.testing.assert_close(module.body.weight, torch.full((2, 3), 0.2))
    assert module.head.weight.max() < 1e-3


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no parameter's name matches 'tail\.\*'.*head\.weight"):
        train(AdaptiveClip(parameters=["tail.*"]))


def test_leaving_out_everything_is_told() -> None:
    with pytest.warns(UserWarning, match="leaves out every parameter"):
        train(AdaptiveClip(exclude_last=True, parameters=["head.*"]))


def test_the_clipped_share_counts_units(tmp_path: Any) -> None:
    # a unit's gradient is -2 in each of its n elements and its limit eps: a bias is one unit of
    # norm 2.8, a row of the body has 3.5, one of the head 2.8; 2 of 6 units are above 3
    train(AdaptiveClip(1.0, eps=3.0), steps=1, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    assert logged(tmp_path, "clipped_share")[0]["clipped_share"] == pytest.approx(2 / 6)


def test_the_last_layer_keeps_its_bias_under_a_parametrization() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    assert {id(p) for p in last_layer(layers)} == {id(p) for p in layers[1].parameters()}


def test_a_layer_replaced_in_mid_run_is_clipped() -> None:
    class Replaces(Quadratic):
        def on_train_start(self) -> None:
            self.head = nn.Linear(2, 2)
            nn.init.zeros_(self.head.weight)
            self.optimizers().add_param_group({"params": [*self.head.parameters()]})

    torch.manual_seed(0)
    module = Replaces()
    settings: dict[str, Any] = {**QUIET, "limit_val_batches": 0, "max_steps": 1, "devices": 1}
    Trainer(callbacks=[AdaptiveClip(1e-3, parameters=["head.*"])], **settings).fit(module)
    assert 0 < module.head.weight.abs().max() < 1e-3
