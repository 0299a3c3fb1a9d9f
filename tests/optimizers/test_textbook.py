"""The source document's optimizers against their formulas in plain tensor arithmetic."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor, tensor
from torch.optim import SGD, Adam, AdamW, RMSprop

import lightning_dlopt
from lightning_dlopt import CosineLR, StepLR, UseOptimizer
from tests.optimizers.toy import Rule, assert_close, by_hand, fit, is_matrix, toy

State = dict[str, Tensor]


def sgd(lr: float) -> Rule:
    return lambda w, g, **_: w - lr * g


def momentum(lr: float, mu: float, nesterov: bool = False) -> Rule:
    def rule(w: Tensor, g: Tensor, name: str, step: int, state: State) -> Tensor:
        v = state["v"] = mu * state.get("v", torch.zeros_like(w)) + g
        return w - lr * (g + mu * v if nesterov else v)

    return rule


def rmsprop(lr: float, alpha: float, eps: float) -> Rule:
    def rule(w: Tensor, g: Tensor, name: str, step: int, state: State) -> Tensor:
        s = state["s"] = alpha * state.get("s", torch.zeros_like(w)) + (1 - alpha) * g * g
        return w - lr * g / (s.sqrt() + eps)

    return rule


def adam(
    lr: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, decay: float = 0.0
) -> Rule:
    def rule(w: Tensor, g: Tensor, name: str, step: int, state: State) -> Tensor:
        m = state["m"] = b1 * state.get("m", torch.zeros_like(w)) + (1 - b1) * g
        v = state["v"] = b2 * state.get("v", torch.zeros_like(w)) + (1 - b2) * g * g
        # biases and norms don't decay
        w = w - lr * decay * w if is_matrix(name) else w
        return w - lr * (m / (1 - b1**step)) / ((v / (1 - b2**step)).sqrt() + eps)

    return rule


CASES: dict[str, tuple[Any, Rule]] = {
    "sgd": (partial(SGD, lr=0.1), sgd(0.1)),
    "momentum": (partial(SGD, lr=0.02, momentum=0.9), momentum(0.02, 0.9)),
    "nag": (partial(SGD, lr=0.02, momentum=0.9, nesterov=True), momentum(0.02, 0.9, True)),
    "adam": (partial(Adam, lr=0.001), adam(0.001)),
    "rmsprop": (partial(RMSprop, lr=0.001, alpha=0.9), rmsprop(0.001, 0.9, 1e-8)),
    "adamw": (partial(AdamW, lr=0.001, weight_decay=0.05), adam(0.001, decay=0.05)),
}


def from_recipe(path: Path) -> UseOptimizer:
    """Return the callback of a recipe as the command builds it."""
    _ = lightning_dlopt.__all__
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(Trainer, "trainer")
    callbacks = yaml.safe_load(path.read_text())["trainer"]["callbacks+"]
    config = parser.parse_object({"trainer": {"callbacks": callbacks, "logger": False}})
    (found,) = parser.instantiate_classes(config)["trainer"]["callbacks"]
    return found


@pytest.mark.parametrize("name", CASES)
def test_python_form_is_the_textbook_formula(name: str) -> None:
    make, rule = CASES[name]
    module = toy()
    fit(module, UseOptimizer(make))
    assert_close(module, by_hand(rule))


@pytest.mark.parametrize("name", CASES)
def test_the_recipe_is_the_textbook_formula(name: str, recipes: Path) -> None:
    make, rule = CASES[name]
    technique = from_recipe(recipes / "optimizers" / f"{name}.yaml")
    module = toy()
    fit(module, technique)
    assert_close(module, by_hand(rule))
    # and the same in a checkpoint, so that a run may be resumed from either form
    assert technique.state_key == UseOptimizer(make).state_key
    assert technique.arguments()["optimizer"]["class_path"].startswith("torch.optim.")


def test_rmsprop_in_keras_has_its_epsilon_inside_the_root() -> None:
    # as Keras computes it: rho=0.9, epsilon inside; torch is asked for the same otherwise
    gradients, eps, rho, lr = [tensor([1e-4]), tensor([2e-4])], 1e-7, 0.9, 0.01
    outside = inside = tensor([1.0])
    s = tensor([0.0])
    weight = torch.nn.Parameter(tensor([1.0]))
    optimizer = RMSprop([weight], lr=lr, alpha=rho, eps=eps)
    for g in gradients:
        s = rho * s + (1 - rho) * g * g
        outside = outside - lr * g / (s.sqrt() + eps)
        inside = inside - lr * g / (s + eps).sqrt()
        weight.grad = g
        optimizer.step()
    torch.testing.assert_close(weight.detach(), outside, rtol=1e-6, atol=0)
    # where the gradient is below sqrt(eps), the steps differ by a factor
    assert (1 - outside) / (1 - inside) > 2
    assert RMSprop([weight]).defaults["alpha"] == 0.99
    assert RMSprop([weight]).defaults["eps"] == 1e-8


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_in_keras_keeps_its_steps_when_the_rate_changes(nesterov: bool) -> None:
    mu, w_torch, w_keras, v, u = 0.9, 1.0, 1.0, 0.0, 0.0
    weight = torch.nn.Parameter(tensor(1.0, dtype=torch.float64))
    optimizer = SGD([weight], lr=0.1, momentum=mu, nesterov=nesterov)
    for step, g in enumerate([1.0, 1.0, -0.5, 0.25]):
        lr = 0.1 if step < 2 else 0.01
        v = mu * v + g
        w_torch -= lr * (g + mu * v if nesterov else v)
        u = mu * u - lr * g
        w_keras += mu * u - lr * g if nesterov else u
        optimizer.param_groups[0]["lr"] = lr
        weight.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        if step < 2:
            assert w_keras == pytest.approx(w_torch, rel=1e-12)
    assert float(weight) == pytest.approx(w_torch, rel=1e-12)
    assert abs(w_keras - w_torch) > 0.1


def test_adam_in_keras_adds_its_epsilon_before_the_correction() -> None:
    b1, b2, lr, eps = 0.9, 0.999, 0.01, 1e-3
    weight = torch.nn.Parameter(tensor(1.0, dtype=torch.float64))
    optimizer = Adam([weight], lr=lr, betas=(b1, b2), eps=eps)
    w_torch, w_keras, w_moved, m, v = 1.0, 1.0, 1.0, 0.0, 0.0
    for step, g in enumerate([1e-2, -3e-3, 2e-3], start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        c1, c2 = 1 - b1**step, 1 - b2**step
        w_torch -= lr * (m / c1) / ((v / c2) ** 0.5 + eps)
        w_keras -= (lr * c2**0.5 / c1) * m / (v**0.5 + eps)
        # torch's form with an epsilon of eps / sqrt(1 - beta2 ** step)
        w_moved -= lr * (m / c1) / ((v / c2) ** 0.5 + eps / c2**0.5)
        weight.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
    assert float(weight) == pytest.approx(w_torch, rel=1e-12)
    assert w_keras == pytest.approx(w_moved, rel=1e-12)
    assert abs(w_keras - w_torch) > 0.1 * abs(w_torch - 1)
    assert 1 / (1 - b2) ** 0.5 == pytest.approx(32, rel=0.02)


def test_adam_and_rmsprop_rescale_and_do_not_clip() -> None:
    for cls in (partial(Adam, lr=0.1), partial(RMSprop, lr=0.1, alpha=0.0)):
        steps = []
        for size in (1e-3, 1.0, 1e3):
            weight = torch.nn.Parameter(tensor(0.0))
            optimizer = cls([weight])
            weight.grad = tensor(size)
            optimizer.step()
            steps.append(-weight.item())
        # a clipped gradient would leave the small ones small
        assert steps == pytest.approx([0.1, 0.1, 0.1], rel=1e-4)


@pytest.mark.parametrize("schedule", [CosineLR(), StepLR(every=2, gamma=0.5)])
def test_a_schedule_multiplies_the_new_rate(schedule: Any) -> None:
    factors = schedule.simulate(6)
    module = toy()
    fit(module, schedule, UseOptimizer(partial(SGD, lr=0.1)))
    assert_close(module, by_hand(lambda w, g, step, **_: w - 0.1 * factors[step - 1] * g))
