from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging

from lightning_dlopt.core import ArgumentError, ConflictError, TechniqueError
from lightning_dlopt.optimizers import FreezeLayers
from tests.contract.run import assert_equal_states, build, train
from tests.contract.tasks import ManualModule, Task
from tests.structure.pruned import (
    WHOLE,
    WIDE,
    WideModule,
    Widths,
    multiply_adds,
    prune,
    widths,
)


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


def test_a_removal_that_turns_out_impossible_later_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lightning_dlopt.structure.channels import in_training

    choose, calls = in_training.choose_channels, []

    def sometimes(*args: Any, **options: Any) -> Any:
        calls.append(options["speed_up"])
        if len(calls) == 4:
            raise ArgumentError("it can't be reached any more")
        return choose(*args, **options)

    monkeypatch.setattr(in_training, "choose_channels", sometimes)
    technique, seen = prune(speed_up=4.0, steps=2, every="1ep"), Widths()
    outcome = train(WIDE, [technique], callbacks=[seen])
    assert len(calls) == 4  # the first step's and the last's beforehand, then these
    told = [str(w.message) for w in outcome.told if "leaves out" in str(w.message)]
    assert len(told) == 1
    assert repr(technique) in told[0]
    assert len(set(seen.widths)) == 2
    assert WHOLE / multiply_adds(outcome.module) == pytest.approx(2.0, rel=0.1)


def test_what_comes_after_the_end_is_said_before_the_first_step() -> None:
    outcome = train(WIDE, [prune(at="2ep", steps=3)], keep_error=True)
    assert isinstance(outcome.error, ArgumentError)
    assert "steps" in str(outcome.error)
    assert not outcome.steps


def test_an_optimizer_that_is_stepped_by_hand_is_refused() -> None:
    class Behind(ManualModule):
        def __init__(self) -> None:
            super().__init__()
            self.others = {"mine": torch.optim.SGD(self.parameters(), lr=0.1)}

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.loss(batch).backward()
            self.others["mine"].step()

    outcome = train(Task(Behind), [prune(at=0)], keep_error=True)
    assert isinstance(outcome.error, TechniqueError)
    assert "self.optimizers()" in str(outcome.error)
    start = build(Task(Behind)).state_dict()
    assert_equal_states(dict(outcome.module.state_dict()), dict(start), "weights")
    assert all(p.grad is None for p in outcome.module.parameters())
