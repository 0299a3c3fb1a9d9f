"""L2 as a callback, against the penalty in the loss, in both of its forms."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import optim

from lightning_dlopt import L1, L2, Technique, TechniqueError
from lightning_dlopt.core import ConflictError
from lightning_dlopt.regularization.l2 import COUPLED
from tests.regularization.regression import Regression, assert_close, fit

ALL = "all"


class Everything(Regression):
    """Its penalty, if in the loss, takes the biases too."""

    def penalty(self) -> Any:
        return sum(self.l2 * (p * p).sum() for p in self.parameters())


def rate(kind: type[Any]) -> float:
    return {optim.Adadelta: 1.0, optim.SGD: 0.1}.get(kind, 0.01)


@pytest.mark.parametrize("method", ["gradient", "weight_decay"])
@pytest.mark.parametrize("kind", COUPLED, ids=lambda kind: kind.__name__)
def test_both_forms_train_as_the_penalty_in_the_loss(kind: Any, method: str) -> None:
    make = partial(kind, lr=rate(kind), weight_decay=0.01)  # the optimizer's own decay stays
    ours = fit(Everything(make=make), [L2(0.05, ALL, method)], accumulate_grad_batches=2)
    theirs = fit(Everything(l2=0.05, make=make), accumulate_grad_batches=2)
    assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    without = fit(Everything(make=make), accumulate_grad_batches=2)
    assert not torch.allclose(ours.net[0].weight, without.net[0].weight, rtol=1e-4, atol=1e-5)


def test_the_factor_to_weight_decay() -> None:
    ours = fit(Regression(make=partial(optim.SGD, lr=0.1)), [L2(0.05, ALL)])
    theirs = fit(Regression(make=partial(optim.SGD, lr=0.1, weight_decay=2 * 0.05)))
    assert_close(ours, theirs)


@pytest.mark.parametrize("method", ["gradient", "weight_decay"])
@pytest.mark.parametrize("fused", [False, True])
def test_16_bit(method: str, fused: bool) -> None:
    make = partial(optim.Adam, lr=0.01, fused=fused)
    ours = fit(Everything(make=make), [L2(0.05, ALL, method)], scale=1024.0)
    assert_close(ours, fit(Everything(l2=0.05, make=make)), rtol=0.02, atol=5e-3)


class Decays(Callback):
    """Writes down every param group's decay at the moments when others may look."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        self.seen += [group["weight_decay"] for group in trainer.optimizers[0].param_groups]

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.on_train_batch_start(trainer)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("scale", [None, 2.0**60])
def test_the_decay_is_raised_for_the_step_alone(
    fused: bool, scale: float | None, tmp_path: Path
) -> None:
    # at that scale every step is skipped
    make = partial(optim.SGD, lr=0.1, weight_decay=0.25, fused=fused)
    decays, saving = Decays(), ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1)
    fit(
        Regression(make=make),
        [L2(0.05, ALL, "weight_decay"), decays, saving],
        scale=scale,
        max_steps=3,
        enable_checkpointing=True,
    )
    assert set(decays.seen) == {0.25}
    paths = list(tmp_path.glob("*.ckpt"))
    assert paths
    for path in paths:
        (state,) = torch.load(path, weights_only=True)["optimizer_states"]
        assert state["param_groups"][0]["weight_decay"] == 0.25


def test_the_decay_is_put_back_after_an_error_within_the_step() -> None:
    optimizers: list[Any] = []

    class Fails(optim.SGD):
        def step(self, closure: Any = None) -> Any:
            closure()
            assert self.param_groups[0]["weight_decay"] == pytest.approx(0.35)
            raise ZeroDivisionError

    def make(parameters: Any) -> Any:
        optimizers.append(Fails(parameters, lr=0.1, weight_decay=0.25))
        return optimizers[0]

    from lightning_dlopt.regularization import l2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(l2, "COUPLED", (Fails,))
        with pytest.raises(ZeroDivisionError):
            fit(Regression(make=make), [L2(0.05, ALL, "weight_decay")])
    assert optimizers[0].param_groups[0]["weight_decay"] == 0.25


def test_a_copy_in_mid_step_does_not_hold_the_optimizer() -> None:
    technique = L2(0.05, ALL, "weight_decay")
    technique._raised.append(({"weight_decay": 1.0}, 0.5))
    assert copy.deepcopy(technique)._raised == []


def groups(parameters: Any) -> Any:
    parameters = list(parameters)
    weights = [p for p in parameters if p.dim() > 1]
    others = [p for p in parameters if p.dim() < 2]
    return optim.SGD([{"params": weights}, {"params": others, "lr": 0.05}], lr=0.1)


def test_groups_of_weights_alone_take_it_in_the_optimizer() -> None:
    ours = fit(Regression(make=groups), [L2(0.05, method="weight_decay")])
    assert_close(ours, fit(Regression(l2=0.05, make=groups)))


class Clips(Regression):
    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        self.clip_gradients(*args, **kwargs)


class LooksAtGradients(Regression):
    def on_before_optimizer_step(self, optimizer: Any) -> None:
        pass


class Halves(Technique):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        pass


class PatchesClipping(Technique):
    def prepare(self, trainer: Any, pl_module: LightningModule) -> None:
        def wrap(original: Any) -> Any:
            return lambda *args, **kwargs: original(*args, **kwargs)

        self.patch(pl_module, "configure_gradient_clipping", wrap)


SGD = partial(optim.SGD, lr=0.1)


@pytest.mark.parametrize(
    ("module", "beside", "arguments", "match"),
    [
        (partial(Regression, make=partial(optim.AdamW, lr=0.1)), [], {}, "AdamW doesn't add"),
        (
            partial(Regression, make=partial(optim.Adam, lr=0.1, decoupled_weight_decay=True)),
            [],
            {},
            "Adam doesn't add",
        ),
        (partial(Regression, make=optim.Rprop), [], {}, "Rprop doesn't add"),
        (Regression, [], {"gradient_clip_val": 1.0}, "gradient_clip_val=1.0"),
        (Clips, [], {}, "configure_gradient_clipping of the module"),
        (LooksAtGradients, [], {}, "on_before_optimizer_step of the module"),
        (Regression, [Halves()], {}, r"Halves\(\) works on the gradients"),
        (Regression, [PatchesClipping()], {}, "configure_gradient_clipping of the module"),
    ],
)
def test_it_is_refused_where_it_is_not_the_same(
    module: Any, beside: Any, arguments: Any, match: str
) -> None:
    built = module()
    before = built.net[0].weight.detach().clone()
    with pytest.raises(TechniqueError, match=match):
        fit(built, [L2(0.05, ALL, "weight_decay"), *beside], **arguments)
    assert torch.equal(built.net[0].weight, before)
    fit(built, [L2(0.05, ALL), *beside], **arguments)  # the other form can


def test_a_group_with_others_in_it_is_refused() -> None:
    with pytest.raises(TechniqueError, match="holds selected parameters and others"):
        fit(Regression(make=SGD), [L2(0.05, method="weight_decay")])


def test_other_penalties_may_stand_beside_it() -> None:
    ours = fit(Regression(make=SGD), [L2(0.05, ALL, "weight_decay"), L1(0.01, ALL)])
    assert_close(ours, fit(Regression(make=SGD), [L2(0.05, ALL), L1(0.01, ALL)]))


def test_two_that_would_raise_the_same_decay_are_refused() -> None:
    both = [L2(0.05, ALL, "weight_decay"), L2(0.1, ["*.weight"], "weight_decay")]
    with pytest.raises(ConflictError, match=r"same parameters.*sum of the strengths"):
        fit(Regression(make=groups), both)
    one = fit(Regression(make=groups), [L2(0.05, ALL, "weight_decay"), L2(0.1)])
    assert_close(one, fit(Regression(make=groups), [L2(0.05, ALL), L2(0.1)]))
    apart = [L2(0.05, ["*.weight"], "weight_decay"), L2(0.1, ["*.bias"], "weight_decay")]
    by_gradient = [L2(0.05, ["*.weight"]), L2(0.1, ["*.bias"])]
    assert_close(fit(Regression(make=groups), apart), fit(Regression(make=groups), by_gradient))
