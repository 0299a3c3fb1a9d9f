"""MagnitudePruning beside other techniques and frozen layers, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, ModelPruning
from torch import nn
from torch.nn.utils import prune

from lightning_dlopt import EMA, L2, SAM, FreezeLayers, Lookahead, ScheduleFree
from lightning_dlopt.core import (
    ArgumentError,
    CheckpointError,
    ConflictError,
    NoEffectWarning,
    TechniqueError,
)
from lightning_dlopt.structure import MagnitudePruning
from tests.structure.to_prune import STEPS, Module, Shares, fit, weights, zero_share


@pytest.mark.parametrize(
    "other", [lambda: Lookahead(k=5), lambda: SAM(), lambda: L2(0.01)], ids=["look", "sam", "l2"]
)
@pytest.mark.parametrize("first", [True, False])
def test_other_techniques_bring_nothing_back(other: Any, first: bool) -> None:
    shares = Shares()
    pruning = MagnitudePruning(0.5, begin=3, end=12, every=3)
    fit(Module(), *([pruning, other()] if first else [other(), pruning]), shares)
    assert shares.seen == sorted(shares.seen)
    assert set(shares.seen[11:]) == {0.5}


@pytest.mark.parametrize(
    "average",
    [lambda: EMA(0.9), lambda: EMAWeightAveraging(decay=0.9)],
    ids=["ours", "lightnings"],
)
def test_averages_with_weights_of_before_are_told(average: Any) -> None:
    with pytest.warns(NoEffectWarning, match="of 72 weights that were pruned .* aren't 0"):
        fit(Module(), MagnitudePruning(0.5), average())


@pytest.mark.filterwarnings("error::lightning_dlopt.core.NoEffectWarning")
def test_averages_of_what_is_pruned_keep_the_zeros() -> None:
    module = Module()
    fit(module, MagnitudePruning(0.5, end="50%"), EMA(0.9, start="60%"))
    assert zero_share(module) == 0.5


def test_a_clipped_norm_is_that_of_what_is_left() -> None:
    norms: list[tuple[float, float]] = []

    class Norms(Module):
        def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
            gradients = [w.grad[w == 0] for w in weights(self) if w.grad is not None]
            norms.append((float(torch.cat(gradients).norm()), zero_share(self)))

    fit(Norms(), MagnitudePruning(0.5, begin=0, end=0))
    assert norms == [(0.0, 0.5)] * STEPS


def test_frozen_and_shared_parameters() -> None:
    class Shared(Module):
        def __init__(self) -> None:
            super().__init__()
            self.net[2].requires_grad_(False)
            self.again = nn.Linear(6, 16)
            self.again.weight = self.net[0].weight

    module = Shared()
    before = module.net[2].weight.clone()
    fit(module, MagnitudePruning(0.5))
    assert torch.equal(module.net[2].weight, before)
    assert int((module.again.weight == 0).sum()) == 48


def test_what_is_frozen_later_is_pruned_no_further() -> None:
    module, frozen = Module(), []

    class Look(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            frozen.append(pl_module.net[0].weight.detach().clone())

    pruning = MagnitudePruning(0.6, end=40, every=4)
    fit(module, pruning, FreezeLayers("net.0", after=20), Look())
    assert torch.equal(frozen[20], frozen[-1])
    assert int((module.net[2].weight == 0).sum()) == 29  # of 48


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"parameters": ["head.*"]}, "no parameter's name matches 'head"),
        ({"begin": "3ep", "end": 20}, "begin is step 30, after end, step 20"),
        ({"end": 41}, "end=41 is 41 steps, but the run has only 40"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, Any], why: str) -> None:
    with pytest.raises((TechniqueError, ArgumentError), match=why) as caught:
        fit(Module(), MagnitudePruning(0.5, **arguments))
    assert "MagnitudePruning(" in str(caught.value)


def test_schedule_free_optimizers_are_refused() -> None:
    schedulefree = pytest.importorskip("schedulefree")

    class Free(Module):
        def configure_optimizers(self) -> Any:
            return schedulefree.SGDScheduleFree(self.parameters(), lr=0.1)

    with pytest.raises(TechniqueError, match="computes the weights anew"):
        fit(Free(), MagnitudePruning(0.5), ScheduleFree())


def test_lightnings_own_pruning_is_refused() -> None:
    rival = ModelPruning(prune.L1Unstructured, amount=0.5, parameter_names=["weight"])
    with pytest.raises(ConflictError, match="ModelPruning"):
        fit(Module(), MagnitudePruning(0.5), rival)


def test_replaced_parameters_are_told() -> None:
    class Replacing(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                pl_module.net[0] = nn.Linear(6, 16)

    with pytest.raises(TechniqueError, match=r"net.0.weight was replaced in training"):
        fit(Module(), MagnitudePruning(0.5), Replacing())


def test_masks_of_another_module_are_refused(tmp_path: Path) -> None:
    class Other(Module):
        def __init__(self) -> None:
            super().__init__()
            self.net[2].requires_grad_(False)

    saving = ModelCheckpoint(tmp_path, filename="one")
    fit(Module(), MagnitudePruning(0.5), saving, max_epochs=2)
    with pytest.raises(CheckpointError, match=r"masks are for net.0.weight, net.2.weight"):
        fit(Other(), MagnitudePruning(0.5), resume=tmp_path / "one.ckpt")


def test_nothing_that_is_trained_is_no_effect() -> None:
    class Biases(Module):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD([self.net[0].bias, self.net[2].bias], lr=0.1)

    with pytest.warns(NoEffectWarning, match="selects none that is trained"):
        fit(Biases(), MagnitudePruning(0.5))
