from typing import Any

import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn

from tests.contract.run import train
from tests.contract.tasks import BATCHES, Task
from tests.structure.pruned import (
    WHOLE,
    WIDE,
    WideModule,
    Widths,
    by_hand,
    kept_units,
    multiply_adds,
    prune,
    rows_kept,
)


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


class Notes(DummyLogger):
    """Keeps what it is told of the pruning."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: int) -> None:
        if "multiply_adds_left" in metrics:
            self.notes.append((step, dict(metrics)))


def test_what_is_left_is_logged_once_at_each_removal() -> None:
    logger, technique = Notes(), prune(at=3, steps=2, every=4)
    outcome = train(WIDE, [technique], logger=logger, log_every_n_steps=2)
    assert [step for step, _ in logger.notes] == [3, 7]
    left = [note for _, note in logger.notes]
    assert left[0]["multiply_adds_left"] > left[1]["multiply_adds_left"]
    assert left[1]["multiply_adds_left"] == pytest.approx(multiply_adds(outcome.module) / WHOLE)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (outcome.module, WideModule())]
    assert left[1]["parameters_left"] == pytest.approx(sizes[0] / sizes[1])


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
