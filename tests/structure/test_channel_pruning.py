import copy
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from torch import Tensor, nn

from lightning_dlopt.core import ArgumentError, ConflictError, NoEffectWarning, TechniqueError
from lightning_dlopt.optimizers import EMA, FreezeLayers, Lookahead
from tests.contract.run import build, train
from tests.contract.tasks import BATCHES, RATE, Task
from tests.structure.pruned import (
    WIDE,
    WideModule,
    Widths,
    multiply_adds,
    prune,
    rows_kept,
    widths,
)

WHOLE = multiply_adds(WideModule())


def kept_units(seen: Widths) -> tuple[list[int], list[int]]:
    """Return which units of the two hidden layers are left, from the biases' values."""
    first = rows_kept(seen.before["net.0.bias"][:, None], seen.after["net.0.bias"][:, None])
    second = rows_kept(seen.before["net.3.bias"][:, None], seen.after["net.3.bias"][:, None])
    return first, second


def by_hand(name: str, tensor: Tensor, first: list[int], second: list[int]) -> Tensor:
    """Cut a tensor of the network's parameter or buffer of that name."""
    if name.startswith(("net.0.", "net.1.")):
        return tensor[first] if tensor.dim() else tensor
    if name == "net.3.weight":
        return tensor[second][:, first]
    if name == "net.3.bias":
        return tensor[second]
    return tensor[:, second] if name == "net.5.weight" else tensor


def test_weights_buffers_and_optimizer_state_are_cut_alike_and_exactly() -> None:
    seen = Widths()
    train(WIDE, [prune()], callbacks=[seen])
    first, second = kept_units(seen)
    assert (len(first), len(second)) != (16, 16)
    assert first == sorted(first)
    for name, tensor in seen.before.items():
        assert torch.equal(by_hand(name, tensor, first, second), seen.after[name]), name
    names = [name for name, _ in WideModule().named_parameters()]
    for index, state in seen.state_before.items():
        assert state.keys() == {"step", "exp_avg", "exp_avg_sq"}
        now = seen.state_after[index]
        for key in ("exp_avg", "exp_avg_sq"):
            expected = by_hand(names[index], state[key], first, second)
            assert torch.equal(expected, now[key]), (names[index], key)
        assert now["step"] == state["step"] == 3


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.Adam(p, fused=True),
        lambda p: torch.optim.Adam(p, foreach=True, amsgrad=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.RMSprop(p, centered=True),
        torch.optim.Adafactor,
    ],
)
def test_training_goes_on_with_what_is_left_as_if_it_had_been_so(optimizer: Any) -> None:
    """A module that was cut by hand and got the state by hand makes the same next step."""

    class Other(WideModule):
        def configure_optimizers(self) -> Any:
            return optimizer(self.parameters())

    seen = Widths()
    outcome = train(Task(Other), [prune(at=2)], callbacks=[seen], max_steps=3)
    names = [name for name, _ in WideModule().named_parameters()]
    parameters = [nn.Parameter(seen.after[name].clone()) for name in names]
    first, second = kept_units(seen)
    twin = optimizer(parameters)
    for index, parameter in enumerate(parameters):
        for key, value in seen.state_before[index].items():
            cut = value
            if isinstance(value, Tensor) and value.shape == seen.before[names[index]].shape:
                cut = by_hand(names[index], value, first, second)
            elif isinstance(value, Tensor) and value.dim() == 2:  # Adafactor's rows and columns
                whole = value.expand_as(seen.before[names[index]])
                cut = by_hand(names[index], whole, first, second)
                cut = cut[:, :1] if value.shape[1] == 1 else cut[:1]
            twin.state[parameter][key] = cut
        parameter.grad = outcome.steps[2].applied[names[index]]
    twin.step()
    for name, parameter in zip(names, parameters, strict=True):
        torch.testing.assert_close(parameter.detach(), outcome.weights[name], rtol=1e-6, atol=1e-7)


def gone(seen: Widths) -> tuple[set[int], set[int]]:
    first, second = kept_units(seen)
    return set(range(16)) - set(first), set(range(16)) - set(second)


def test_removal_takes_the_smallest_weights() -> None:
    class Uneven(WideModule):
        def __init__(self) -> None:
            super().__init__()
            with torch.no_grad():
                self.net[0].weight[3:9] *= 1e-3
                self.net[3].weight[:, 3:9] *= 1e-3
                self.net[3].weight[10:] *= 1e-3
                self.net[5].weight[:, 10:] *= 1e-3

    seen = Widths()
    train(Task(Uneven), [prune(at=1, speed_up=1.8)], callbacks=[seen])
    first, second = gone(seen)
    assert first | second
    assert first <= set(range(3, 9))
    assert second <= set(range(10, 16))


@pytest.mark.parametrize("by", ["multiply_adds", "parameters"])
def test_it_gets_as_small_as_it_says(by: str) -> None:
    outcome = train(WIDE, [prune(speed_up=3.0, by=by)])
    module, whole = outcome.module, WideModule()
    if by == "multiply_adds":
        reached = WHOLE / multiply_adds(module)
    else:
        count = [sum(p.numel() for p in one.parameters()) for one in (whole, module)]
        reached = count[0] / count[1]
    assert reached == pytest.approx(3.0, rel=0.1)


def test_the_steps_come_when_they_should_and_each_removes_as_much() -> None:
    seen = Widths()
    train(WIDE, [prune(speed_up=4.0, at="1ep", steps=3, every="0.5ep")], callbacks=[seen])
    changes = [i for i in range(1, len(seen.widths)) if seen.widths[i] != seen.widths[i - 1]]
    assert changes == [BATCHES, BATCHES + BATCHES // 2, 2 * BATCHES]
    for step, at in enumerate(changes, start=1):
        (a, b, c) = seen.widths[at]
        reached = WHOLE / (6 * a + a * b + b * c)
        assert reached == pytest.approx(4.0 ** (step / 3), rel=0.1)


def test_at_0_is_before_the_first_step() -> None:
    seen = Widths()
    outcome = train(WIDE, [prune(at=0)], callbacks=[seen])
    assert seen.widths[0] != (16, 16, 3)
    assert outcome.steps[0].before["net.0.weight"].shape[0] == seen.widths[0][0]


def test_at_the_end_nothing_changes_until_the_end() -> None:
    seen = Widths()
    outcome = train(WIDE, [prune(at="100%")], callbacks=[seen])
    assert set(seen.widths) == {(16, 16, 3)}
    assert WHOLE / multiply_adds(outcome.module) == pytest.approx(2.0, rel=0.1)
    baseline = train(WIDE, [])
    first = rows_kept(
        baseline.weights["net.0.bias"][:, None], outcome.weights["net.0.bias"][:, None]
    )
    assert torch.equal(outcome.weights["net.0.weight"], baseline.weights["net.0.weight"][first])


def test_it_waits_for_a_window_of_accumulation_to_end() -> None:
    seen = Widths()
    train(WIDE, [prune(at=1)], callbacks=[seen], accumulate_grad_batches=4)
    changes = [i for i in range(1, len(seen.widths)) if seen.widths[i] != seen.widths[i - 1]]
    assert changes == [4]


def test_until_then_training_is_the_baselines() -> None:
    with_it, without = train(WIDE, [prune(at=5)]), train(WIDE, [])
    for step in range(5):
        for name, tensor in without.steps[step].after.items():
            assert torch.equal(with_it.steps[step].after[name], tensor)
    assert with_it.module.seen == without.module.seen
    assert with_it.global_generators == without.global_generators


def test_what_is_left_is_logged_once_after_each_removal() -> None:
    seen = Widths()
    outcome = train(WIDE, [prune()], callbacks=[seen], log_every_n_steps=2)
    left = multiply_adds(outcome.module) / WHOLE
    assert seen.logged["multiply_adds_left"] == pytest.approx(left)
    assert 0 < seen.logged["parameters_left"] < 1


def test_by_the_gradient_it_removes_what_the_loss_misses_least() -> None:
    """Units whose outgoing weights are zero don't matter, however large the incoming are."""

    class Deaf(WideModule):
        def __init__(self) -> None:
            super().__init__()
            with torch.no_grad():
                self.net[3].weight[:, :6] = 0
                self.net[0].weight[:6] *= 100

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    deaf, first = set(range(6)), {}
    for importance in ("taylor", "magnitude"):
        seen = Widths()
        train(Task(Deaf), [prune(speed_up=1.5, importance=importance, at=1)], callbacks=[seen])
        first[importance] = gone(seen)[0]
    assert first["taylor"]
    assert first["taylor"] <= deaf or deaf <= first["taylor"]
    assert not first["magnitude"] & deaf


def test_a_removal_by_the_gradient_leaves_no_gradients_behind() -> None:
    outcome = train(WIDE, [prune(importance="taylor", at=0)])
    one = train(WIDE, [prune(importance="taylor", at=0)])
    assert outcome.module.seen == one.module.seen == 3 * BATCHES


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


@pytest.mark.parametrize("callback", [EMAWeightAveraging(), StochasticWeightAveraging(swa_lrs=0.1)])
def test_averages_of_lightning_are_refused(callback: Any) -> None:
    with pytest.raises(ConflictError, match=rf"ChannelPruning.*{type(callback).__name__}"):
        train(WIDE, [prune()], callbacks=[callback])


def test_a_technique_that_cannot_follow_is_refused() -> None:
    class Stubborn(FreezeLayers):
        follows_cuts = False

    for order in (1, -1):
        techniques = [prune(), Stubborn(["net.0"], until=1)][::order]
        outcome = train(WIDE, techniques, keep_error=True)
        assert isinstance(outcome.error, ConflictError)
        assert all(repr(one) in str(outcome.error) for one in techniques)


def test_an_optimizer_that_cannot_be_cut_is_refused_before_the_first_step() -> None:
    class Second(WideModule):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters())

    outcome = train(Task(Second), [prune()], keep_error=True)
    assert isinstance(outcome.error, TechniqueError)
    assert "LBFGS" in str(outcome.error)
    assert not outcome.steps


def test_a_hidden_optimizer_is_refused() -> None:
    class Hidden(WideModule):
        def __init__(self) -> None:
            super().__init__()
            self.mine = torch.optim.SGD(self.parameters(), lr=0.1)

    outcome = train(Task(Hidden), [prune()], keep_error=True)
    assert isinstance(outcome.error, TechniqueError)
    assert "Hidden.mine" in str(outcome.error)


def test_what_cannot_be_reached_is_said_before_the_first_step() -> None:
    outcome = train(WIDE, [prune(speed_up=1000.0, at="2ep")], keep_error=True)
    assert isinstance(outcome.error, TechniqueError)
    assert "ChannelPruning" in str(outcome.error)
    assert not outcome.steps
    assert widths(outcome.module) == (16, 16, 3)


def test_what_comes_after_the_end_is_said_before_the_first_step() -> None:
    outcome = train(WIDE, [prune(at="2ep", steps=3)], keep_error=True)
    assert isinstance(outcome.error, ArgumentError)
    assert "steps" in str(outcome.error)
    assert not outcome.steps


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
