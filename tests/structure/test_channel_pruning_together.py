import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn

from lightning_dlopt.core import NoEffectWarning, TechniqueError
from lightning_dlopt.optimizers import EMA, FreezeLayers, Lookahead, ScheduleFree
from lightning_dlopt.structure import MagnitudePruning
from tests.contract.input_kinds import with_convolutions
from tests.contract.run import assert_equal_states, assert_same_training, build, train
from tests.contract.tasks import BATCHES, RATE, TASKS, Task
from tests.structure.pruned import (
    WHOLE,
    WIDE,
    WideModule,
    Widths,
    by_hand,
    kept_units,
    multiply_adds,
    prune,
    widths,
)


def test_frozen_layers_stay_as_they_are() -> None:
    class Frozen(WideModule):
        def __init__(self) -> None:
            super().__init__()
            self.net[0].requires_grad_(False)

    outcome = train(Task(Frozen), [prune(speed_up=1.5)])
    module = outcome.module
    assert [p.requires_grad for p in module.net.parameters()] == [False] * 2 + [True] * 6
    assert widths(module)[0] == 16
    assert widths(module)[1] < 16
    assert torch.equal(module.net[0].weight, build(Task(Frozen)).net[0].weight)


def test_param_groups_keep_their_options_and_schedulers_go_on() -> None:
    class Grouped(WideModule):
        def configure_optimizers(self) -> Any:
            groups = [
                {"params": list(self.net[:3].parameters())},
                {"params": list(self.net[3:].parameters()), "lr": RATE / 100, "weight_decay": 0.1},
            ]
            optimizer = torch.optim.AdamW(groups, lr=RATE / 10)
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
            return {"optimizer": optimizer, "lr_scheduler": scheduler}

    pruned, plain = train(Task(Grouped), [prune()]), train(Task(Grouped), [])
    assert pruned.rates == plain.rates
    assert pruned.schedulers == plain.schedulers
    for left, right in zip(
        pruned.optimizers[0]["param_groups"], plain.optimizers[0]["param_groups"], strict=True
    ):
        assert left == right
    assert widths(pruned.module) != (16, 16, 3)
    final, before = pruned.steps[-1].after, pruned.steps[-1].before
    assert all(not torch.equal(final[name], before[name]) for name in final)


def test_freezing_goes_on() -> None:
    for order in (1, -1):
        techniques = [prune(), FreezeLayers(["net.0"], until="2ep")][::order]
        outcome = train(WIDE, techniques)
        steps = [step.after["net.0.weight"] for step in outcome.steps]
        assert torch.equal(steps[3], steps[2 * BATCHES - 1])
        assert not torch.equal(steps[2 * BATCHES - 1], steps[-1])
        assert outcome.module.net[0].weight.requires_grad


@pytest.mark.parametrize("order", [1, -1])
def test_a_moving_average_follows(order: int) -> None:
    """The average is that of the weights that are left, over their whole history."""
    seen = Widths()
    plain = train(WIDE, [prune()], callbacks=[seen])
    averaged = train(WIDE, [prune(), EMA(0.8)][::order])
    first, second = kept_units(seen)
    for name in plain.steps[0].after:
        history = [step.after[name] for step in plain.steps]
        history = [
            by_hand(name, t, first, second) if t.shape != history[-1].shape else t for t in history
        ]
        average = history[0]
        for weights in history[1:]:
            average = 0.8 * average + 0.2 * weights
        torch.testing.assert_close(averaged.weights[name], average, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", [1, -1])
def test_slow_weights_follow(order: int) -> None:
    seen = Widths()
    outcome = train(WIDE, [prune(), Lookahead(k=5, alpha=0.5)][::order], callbacks=[seen])
    first, _ = kept_units(seen)
    # the fifth step is halfway between where it came to and where training began
    start = build(WIDE).net[0].weight.detach()[first]
    step = outcome.steps[4]
    reached = 2 * step.after["net.0.weight"] - start
    moved = (reached - step.before["net.0.weight"]).abs()
    assert moved.max() < 3 * RATE / 10, "Adam's steps are about as long as its rate"


def test_a_step_that_calls_several_parts_keeps_what_goes_between_them() -> None:
    class Chain(WideModule):
        def loss(self, batch: Any) -> Tensor:
            x, y = self.unpack(batch)
            x = self.net[2](self.net[1](self.net[0](x)))
            return nn.functional.cross_entropy(self.net[5](self.net[4](self.net[3](x))), y)

    outcome = train(Task(Chain), [prune()], keep_error=True)
    assert widths(outcome.module) == (16, 16, 3)
    told = any(w.category is NoEffectWarning for w in outcome.told)
    assert told or isinstance(outcome.error, TechniqueError)


def test_a_module_that_calls_itself_is_pruned() -> None:
    class Itself(WideModule):
        def forward(self, x: Tensor) -> Any:
            return self.net(x)

        def loss(self, batch: Any) -> Tensor:
            x, y = self.unpack(batch)
            return nn.functional.cross_entropy(self(x), y)

    for module in (build(Task(Itself)), torch.compile(build(Task(Itself)), backend="eager")):
        outcome = train(Task(Itself), [prune()], module=module)
        assert WHOLE / multiply_adds(outcome.module) == pytest.approx(2.0, rel=0.1)


def test_a_second_fit_trains_what_is_left_and_removes_no_more() -> None:
    module, technique = build(WIDE), prune()
    train(WIDE, [technique], module=module)
    first = widths(module)
    outcome = train(WIDE, [technique], module=module)
    assert widths(module) == first
    assert not torch.equal(outcome.initial["net.0.weight"], outcome.weights["net.0.weight"])
    twin = copy.deepcopy(module)
    assert widths(twin) == first


def test_at_a_speed_up_of_1_it_says_that_it_does_nothing() -> None:
    outcome = train(WIDE, [prune(speed_up=1.0)])
    assert any("speed_up is 1" in str(w.message) for w in outcome.told)
    assert "_structure_plan" not in vars(outcome.module)


@pytest.mark.parametrize("name", ["manual", "manual_scheduled"])
def test_under_manual_optimization_the_extra_pass_steps_nothing(name: str) -> None:
    pruned, plain = (train(TASKS[name], each) for each in ([prune(speed_up=1.6, at=4)], []))
    for left, right in zip(pruned.steps[:8], plain.steps[:8], strict=True):  # two a batch
        assert_equal_states(left.after, right.after, "weights")
    assert pruned.rates == plain.rates
    assert pruned.module.net[0].out_features < 8


def test_a_module_that_holds_what_cannot_be_copied_is_pruned() -> None:
    class Holding(WideModule):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.stream = (i for i in range(3))
            self.last = self.loss(batch) * 2
            return super().training_step(batch, batch_idx)

    outcome = train(Task(Holding), [prune()])
    assert WHOLE / multiply_adds(outcome.module) == pytest.approx(2.0, rel=0.1)


def test_the_technique_can_be_pickled_in_training() -> None:
    class Pickling(WideModule):
        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            technique = self.trainer.callbacks[0]
            assert pickle.loads(pickle.dumps(technique)).arguments() == technique.arguments()

    train(Task(Pickling), [prune(at="100%")])


@pytest.mark.parametrize("order", [1, -1])
def test_training_weights_of_schedule_free_optimizers_follow(order: int) -> None:
    """After a validation it isn't the evaluated weights that are cut and trained on."""

    class Free(WideModule):
        def configure_optimizers(self) -> Any:
            return AdamWScheduleFree(self.parameters(), lr=RATE)

    seen = Widths()
    train(Task(Free), [prune(at=BATCHES), ScheduleFree()][::order], callbacks=[seen])
    first, second = kept_units(seen)
    for name, _ in WideModule().named_parameters():
        expected = by_hand(name, seen.before[name], first, second)
        # both directions of the switch are sums
        torch.testing.assert_close(expected, seen.after[name], rtol=1e-5, atol=1e-6)


def test_convolutions_with_norms_are_pruned() -> None:
    task = with_convolutions(TASKS["batch_norm"])
    outcome = train(task, [prune(speed_up=1.5, at=2)])
    net = outcome.module.net
    assert net[0].out_channels == net[1].num_features == len(net[1].running_mean)
    assert net[0].out_channels == net[4].in_channels == net[4].weight.shape[1]
    assert (net[0].out_channels, net[4].out_channels) != (4, 6)


@pytest.mark.parametrize("order", [1, -1])
def test_masks_follow(order: int, tmp_path: Path) -> None:
    def techniques() -> list[Any]:
        return [prune(at=6), MagnitudePruning(0.5, begin=0, end=4, every=1)][::order]

    seen = Widths()
    outcome = train(WIDE, techniques(), callbacks=[seen], checkpoints=tmp_path)
    first, second = kept_units(seen)
    zeros = 0
    for name in ("net.0.weight", "net.3.weight", "net.5.weight"):
        gone = by_hand(name, seen.before[name], first, second) == 0
        assert torch.equal(gone, outcome.weights[name] == 0)
        zeros += int(gone.sum())
    assert zeros
    for batch in (5, 6, 9):
        resumed = train(WIDE, techniques(), resume=tmp_path / f"batch={batch}.ckpt")
        assert_same_training(resumed, outcome)
