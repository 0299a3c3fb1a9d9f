"""UseOptimizer: groups, refusals, fused forms, resuming, the mixin."""

import copy
import functools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, RMSprop

from lightning_dlopt import CosineLR, Muon, OptimizerMixin, UseOptimizer
from lightning_dlopt.core import (
    ArgumentError,
    CheckpointError,
    ConflictError,
    NoEffectWarning,
    TechniqueError,
)
from lightning_dlopt.optimizers import use_optimizer
from lightning_dlopt.optimizers.given import can_fuse
from tests.optimizers.toy import Toy, assert_close, by_hand, fit, names_of, rates, toy

DECAYING = partial(AdamW, lr=0.1, weight_decay=0.3)
BIASES_AND_NORMS = ["net.0.bias", "net.1.weight", "net.1.bias", "net.3.bias", "net.5.bias"]


class Groups(Toy):
    """A slow body without decay, a fast last layer with it; the norm left out."""

    def configure_optimizers(self) -> Any:
        body = [self.net[0], self.net[3]]
        slow = [p for layer in body for p in layer.parameters()]
        groups = [
            {"params": slow, "lr": 1e-3, "weight_decay": 0},
            {"params": self.net[5].parameters(), "lr": 1e-2, "weight_decay": 0.1},
        ]
        return AdamW(groups)


# ---- which parameters, at what rate, with what decay ----


def test_norms_and_biases_are_left_out_of_weight_decay() -> None:
    module = toy()
    trainer = fit(module, UseOptimizer(DECAYING))
    decay = [group["weight_decay"] for group in trainer.optimizers[0].param_groups]
    assert dict(zip(decay, map(sorted, names_of(trainer, module)), strict=True)) == {
        0.3: ["net.0.weight", "net.3.weight", "net.5.weight"],
        0.0: sorted(BIASES_AND_NORMS),
    }


def test_patterns_take_the_place_of_auto() -> None:
    module = toy()
    trainer = fit(module, UseOptimizer(DECAYING, no_decay=["*.0.*", "net.5.weight"]))
    groups = dict(
        zip(
            [group["weight_decay"] for group in trainer.optimizers[0].param_groups],
            names_of(trainer, module),
            strict=True,
        )
    )
    assert groups[0.0] == ["net.0.weight", "net.0.bias", "net.5.weight"]


def test_none_decays_all_in_one_group() -> None:
    trainer = fit(toy(), UseOptimizer(DECAYING, no_decay=None))
    assert [g["weight_decay"] for g in trainer.optimizers[0].param_groups] == [0.3]


def test_the_own_groups_rates_keep_their_relation_and_their_lack_of_decay() -> None:
    module = toy(Groups)
    before = copy.deepcopy(module.net[1].state_dict())
    trainer = fit(module, UseOptimizer(DECAYING))
    found = [
        (sorted(names), pytest.approx(group["lr"]), group["weight_decay"])
        for names, group in zip(
            names_of(trainer, module), trainer.optimizers[0].param_groups, strict=True
        )
    ]
    assert found == [
        (["net.0.bias", "net.0.weight", "net.3.bias", "net.3.weight"], 0.01, 0.0),
        (["net.5.weight"], 0.1, 0.3),
        (["net.5.bias"], 0.1, 0.0),
    ]
    # what the module left out stays out
    assert all(torch.equal(before[name], module.net[1].state_dict()[name]) for name in before)


def test_layer_decay_lowers_the_rate_from_output_to_input() -> None:
    module = toy()
    trainer = fit(module, UseOptimizer(partial(SGD, lr=0.4), layer_decay=0.5))
    assert [sorted(names) for names in names_of(trainer, module)] == [
        ["net.0.bias", "net.0.weight", "net.1.bias", "net.1.weight"],
        ["net.3.bias", "net.3.weight"],
        ["net.5.bias", "net.5.weight"],
    ]
    assert rates(trainer) == pytest.approx([0.1, 0.2, 0.4])
    scale = {"0": 0.1, "1": 0.1, "3": 0.2, "5": 0.4}
    assert_close(module, by_hand(lambda w, g, name, **_: w - scale[name[0]] * g))


def test_a_schedule_multiplies_every_layers_rate() -> None:
    module = toy()
    factors = CosineLR().simulate(6)
    fit(module, UseOptimizer(partial(SGD, lr=0.4), layer_decay=0.5), CosineLR())
    scale = {"0": 0.1, "1": 0.1, "3": 0.2, "5": 0.4}
    assert_close(
        module,
        by_hand(lambda w, g, name, step, **_: w - scale[name[0]] * factors[step - 1] * g),
    )


def test_frozen_parameters_inside_the_own_optimizer_can_be_thawed_later() -> None:
    module = toy()
    module.net[0].requires_grad_(False)
    trainer = fit(module, UseOptimizer(DECAYING))
    assert {"net.0.weight", "net.0.bias"} <= {n for g in names_of(trainer, module) for n in g}


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"optimizer": partial(SGD, lr=0.1), "no_decay": ["*.bias"]}, "no weight decay"),
        ({"optimizer": partial(SGD, lr=0.0)}, "rate is 0"),
    ],
)
def test_arguments_without_effect_are_told(arguments: Any, what: str) -> None:
    with pytest.warns(NoEffectWarning, match=what):
        fit(toy(), UseOptimizer(**arguments))


# ---- what is refused ----


class Two(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        return SGD(self.net[0].parameters()), SGD(self.net[3].parameters())


class NoOptimizer(Toy):
    def configure_optimizers(self) -> Any:
        return None


class Foreign(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(2, 2)]  # not registered

    def configure_optimizers(self) -> Any:
        return SGD([*self.parameters(), *self.hidden[0].parameters()])


@pytest.mark.parametrize(
    ("cls", "make", "arguments", "why"),
    [
        (Two, SGD, {}, "Two has 2 optimizers"),
        (NoOptimizer, SGD, {}, "NoOptimizer has no optimizer"),
        (Foreign, SGD, {}, r"aren't the module's, of shape \(2, 2\), \(2,\)"),
        (Toy, lambda _: "an optimizer", {}, "is no torch optimizer"),
        (Toy, lambda params: SGD(p for p in params), {"no_decay": ["nothing"]}, "nothing"),
        (Toy, lambda params: SGD(params, lr=-1), {}, "Invalid learning rate: -1"),
        (Toy, lambda params: SGD([{"params": [p]} for p in params]), {}, "keep the parameters"),
        (Toy, LBFGS, {"layer_decay": 0.5}, "LBFGS doesn't support per-parameter options"),
        *([(Toy, torch.optim.Muon, {}, "2D")] if hasattr(torch.optim, "Muon") else []),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(
    cls: Any, make: Any, arguments: Any, why: str
) -> None:
    module = toy(cls)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(TechniqueError, match=rf"UseOptimizer.*{why}"):
        fit(module, UseOptimizer(make, **arguments))
    assert all(torch.equal(before[name], module.state_dict()[name]) for name in before)
    assert "configure_optimizers" not in vars(module)


@pytest.mark.parametrize(
    ("make", "arguments", "refused"),
    [
        (DECAYING, {}, True),
        (Muon, {"no_decay": None}, True),
        (DECAYING, {"no_decay": ["*.bias"]}, False),
        (partial(SGD, lr=0.1), {}, False),
    ],
)
def test_flat_parameters_are_refused_where_shapes_matter(
    make: Any, arguments: Any, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # FSDP's first form runs on accelerators only; another module stands in for its wrapper
    monkeypatch.setattr(use_optimizer, "FullyShardedDataParallel", nn.Tanh)
    if not refused:
        fit(toy(), UseOptimizer(make, **arguments))
        return
    with pytest.raises(TechniqueError, match="FSDP's flat parameters"):
        fit(toy(), UseOptimizer(make, **arguments))


@pytest.mark.parametrize("bad", [partial(SGD, lr=-1.0), partial(Adam, momentum=0.9)])
def test_bad_arguments_of_the_optimizer_raise_at_once(bad: Any) -> None:
    with pytest.raises(ArgumentError, match="UseOptimizer: optimizer"):
        UseOptimizer(bad)


def test_two_raise() -> None:
    with pytest.raises(ConflictError, match="choice of the optimizer"):
        fit(toy(), UseOptimizer(SGD), UseOptimizer(Adam))


class ManualToy(Toy):
    """Manual optimization with one optimizer, which it asks Lightning for."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


def test_manual_optimization_with_one_optimizer_works() -> None:
    module = toy(ManualToy)
    fit(module, UseOptimizer(partial(SGD, lr=0.1)))
    assert_close(module, by_hand(lambda w, g, **_: w - 0.1 * g))


def test_an_optimizer_of_one_group_without_decay_works() -> None:
    module = toy()
    trainer = fit(module, UseOptimizer(partial(LBFGS, lr=0.1, max_iter=2)))
    assert isinstance(trainer.optimizers[0], LBFGS)


def test_a_function_works() -> None:
    module = toy()
    fit(module, UseOptimizer(lambda params: SGD(params, lr=0.1)))
    assert_close(module, by_hand(lambda w, g, **_: w - 0.1 * g))


# ---- fused forms ----


@pytest.mark.parametrize("cls", [SGD, Adam, AdamW, Adagrad])
def test_the_fused_form_is_used_and_computes_the_same(cls: Any) -> None:
    fused, plain = toy(), toy()
    trainer = fit(fused, UseOptimizer(partial(cls, lr=0.05)))
    assert all(group["fused"] is True for group in trainer.optimizers[0].param_groups)
    fit(plain, UseOptimizer(partial(cls, lr=0.05, fused=False)))
    assert_close(fused, plain.state_dict())


@pytest.mark.parametrize("chosen", [{"fused": False}, {"foreach": True}, {"foreach": False}])
def test_an_implementation_that_is_asked_for_is_kept(chosen: Any) -> None:
    trainer = fit(toy(), UseOptimizer(partial(AdamW, **chosen)))
    for group in trainer.optimizers[0].param_groups:
        assert {name: group[name] for name in chosen} == chosen
        assert not group["fused"]


@pytest.mark.parametrize(
    ("dtype", "fused"),
    [(torch.float32, True), (torch.float64, True), (torch.bfloat16, True), (torch.cfloat, False)],
)
def test_what_torch_cannot_fuse_is_found_by_trying(dtype: Any, fused: bool) -> None:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, dtype=dtype))]
    assert can_fuse(partial(Adagrad, lr=0.1), parameters) is fused


def test_other_optimizers_are_left_as_they_are() -> None:
    assert "fused" not in fit(toy(), UseOptimizer(RMSprop)).optimizers[0].param_groups[0]

    class Own(AdamW):
        pass

    trainer = fit(toy(), UseOptimizer(Own))
    assert trainer.optimizers[0].param_groups[0]["fused"] is None


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_trainer_clips_as_it_does_without_the_fused_form(precision: Any) -> None:
    results = []
    for chosen in ({}, {"fused": False}):
        module = toy()
        technique = UseOptimizer(partial(SGD, lr=0.5, **chosen))
        fit(module, technique, gradient_clip_val=0.1, precision=precision)
        results.append(module)
    assert_close(results[0], results[1].state_dict())


def test_sixteen_bit_training_clips_and_skips_overflows_as_without_the_fused_form() -> None:
    results = []
    for chosen in ({}, {"fused": False}):
        module = toy()
        # so high at first that the gradients overflow and steps are skipped
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**18)
        trainer = fit(
            module,
            UseOptimizer(partial(Adam, lr=0.05, **chosen)),
            plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
            gradient_clip_val=0.1,
        )
        results.append(module)
        assert scaler.get_scale() < 2.0**18
        steps = {float(state["step"]) for state in trainer.optimizers[0].state.values()}
        assert 0 < max(steps) < 6
    assert_close(results[0], results[1].state_dict())


# ---- resuming ----


def checkpoint(folder: Path, *techniques: Any, cls: Any = Toy) -> Path:
    fit(
        toy(cls),
        *techniques,
        ModelCheckpoint(folder, "one", every_n_train_steps=3, save_top_k=-1),
        enable_checkpointing=True,
    )
    return folder / "one.ckpt"


@pytest.mark.parametrize(
    ("then", "why"),
    [
        (UseOptimizer(SGD), "AdamW.*SGD.*Resume with that"),
        (UseOptimizer(partial(AdamW, lr=1.0)), "Resume with that.*load the weights alone"),
        (UseOptimizer(DECAYING, no_decay=None), "Resume with that"),
    ],
)
def test_another_optimizer_than_the_checkpoints_is_refused(
    tmp_path: Path, then: Any, why: str
) -> None:
    path = checkpoint(tmp_path, UseOptimizer(DECAYING))
    with pytest.raises(CheckpointError, match=f"(?s)saved with UseOptimizer.*{why}"):
        fit(toy(), then, ckpt_path=path, max_epochs=2)
    fit(toy(), UseOptimizer(DECAYING), ckpt_path=path, max_epochs=2)


def test_a_checkpoint_of_the_modules_own_optimizer_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"module's own optimizer.*without UseOptimizer"):
        fit(toy(), UseOptimizer(DECAYING), ckpt_path=path, max_epochs=2)


def test_a_function_that_makes_another_class_is_refused(tmp_path: Path) -> None:
    kinds: list[Any] = [AdamW]

    def make(params: Any) -> Any:
        return kinds[-1](params)

    path = checkpoint(tmp_path, UseOptimizer(make))
    kinds.append(SGD)
    with pytest.raises(CheckpointError, match=r"state of torch.optim.adamw.AdamW.*torch.optim.sgd"):
        fit(toy(), UseOptimizer(make), ckpt_path=path, max_epochs=2)


class Crash(Toy):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 4:
            raise ZeroDivisionError
        return super().training_step(batch, batch_idx)


def test_a_checkpoint_that_an_exception_leaves_names_the_optimizer(tmp_path: Path) -> None:
    saving = OnExceptionCheckpoint(tmp_path, "crash")
    with pytest.raises(ZeroDivisionError):
        fit(toy(Crash), UseOptimizer(DECAYING), saving, enable_checkpointing=True)
    content = torch.load(tmp_path / "crash.ckpt", weights_only=True)
    (state,) = (state for state in content["callbacks"].values() if "technique" in state)
    assert state["optimizer_class"] == "torch.optim.adamw.AdamW"


class Scheduled(Groups):
    """Brings two schedulers that step with every step."""

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.25, total_iters=4)
        rest = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, rest], [4])
        return [optimizer], [{"scheduler": both, "interval": "step"}]


def test_a_run_with_the_modules_scheduler_is_resumed_bitwise(tmp_path: Path) -> None:
    whole, resumed = toy(Scheduled), toy(Scheduled)
    saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    one = fit(whole, UseOptimizer(DECAYING), saving, max_epochs=3, enable_checkpointing=True)
    two = fit(resumed, UseOptimizer(DECAYING), ckpt_path=tmp_path / "epoch=0.ckpt", max_epochs=3)
    assert rates(one) == rates(two)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name])


# ---- the mixin ----


class Bare(LightningModule):
    """Says nothing about its optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Toy().net

    training_step = Toy.training_step


class Carrying(OptimizerMixin, Bare):
    pass


def test_a_module_without_configure_optimizers_trains_with_the_one_it_carries() -> None:
    torch.manual_seed(3)
    module = Carrying(optimization=[UseOptimizer(DECAYING, layer_decay=0.5)])
    trainer = fit(module)
    other = toy()
    callback_form = fit(other, UseOptimizer(DECAYING, layer_decay=0.5))
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert str(trainer.optimizers[0].state_dict()) == str(callback_form.optimizers[0].state_dict())


def test_the_mixin_alone_says_what_is_missing() -> None:
    with pytest.raises(TechniqueError, match="Carrying has no configure_optimizers"):
        fit(Carrying())


def test_the_mixin_leaves_the_modules_own_optimizer() -> None:
    class Own(OptimizerMixin, Toy):
        pass

    torch.manual_seed(3)
    trainer = fit(Own())
    assert isinstance(trainer.optimizers[0], Adagrad)
    assert rates(trainer) == [7.0]


# ---- with Muon ----


def test_muon_is_told_which_matrices_are_hidden() -> None:
    module = toy()
    trainer = fit(module, UseOptimizer(partial(Muon, weight_decay=0.1), layer_decay=0.5))
    kinds = [(g["use_muon"], g["weight_decay"]) for g in trainer.optimizers[0].param_groups]
    found = {
        name: kind
        for names, kind in zip(names_of(trainer, module), kinds, strict=True)
        for name in names
    }
    hidden = {name for name, (use_muon, _) in found.items() if use_muon}
    assert hidden == {"net.0.weight", "net.3.weight"}
    assert {name for name, (_, decay) in found.items() if decay == 0} == set(BIASES_AND_NORMS)
    by_name = dict(zip((n[0] for n in names_of(trainer, module)), rates(trainer), strict=True))
    assert by_name["net.3.weight"] == pytest.approx(0.01)
    assert by_name["net.5.weight"] == pytest.approx(3e-4)


def test_arguments_are_the_same_from_a_class_and_from_a_partial_at_its_defaults() -> None:
    plain, partly = UseOptimizer(SGD), UseOptimizer(functools.partial(SGD, lr=1e-3, momentum=0))
    assert plain.state_key == partly.state_key
