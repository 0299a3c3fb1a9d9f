"""MagnitudePruning against a loop written by hand, and against Lightning's ModelPruning."""

import copy
import gzip
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, ModelPruning
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional

from lightning_dlopt.structure import MagnitudePruning, prune_by_magnitude_
from tests.structure.to_prune import (
    BATCHES,
    EPOCHS,
    OPTIMIZERS,
    STEPS,
    Module,
    Shares,
    StopAfter,
    data,
    fit,
    weights,
    zero_share,
)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_it_trains_as_a_loop_with_torchs_own_masks(optimizer: str, scope: str) -> None:
    final, begin, every, end = 0.7, 4, 8, 32
    by_hand = Module()
    layers: Any = [by_hand.net[0], by_hand.net[2]]
    masks = [torch.ones_like(layer.weight) for layer in layers]
    stepper = OPTIMIZERS[optimizer](by_hand.parameters())
    x, y = data()
    for step in range(STEPS):
        if (begin <= step <= end and (step - begin) % every == 0) or step == end:
            share = final * (1 - (1 - (step - begin) / (end - begin)) ** 3)
            flat = [torch.cat([layer.weight.detach().abs().flatten() for layer in layers])]
            if scope == "layer":
                flat = [layer.weight.detach().abs().flatten() for layer in layers]
            drawn = []
            for one in flat:
                chosen = torch.ones_like(one)
                chosen[one.argsort(stable=True)[: round(share * one.numel())]] = 0
                drawn.append(chosen)
            parts = torch.cat(drawn).split([mask.numel() for mask in masks])
            masks = [part.view_as(mask) for part, mask in zip(parts, masks, strict=True)]
        at = step % BATCHES * 8
        hidden = functional.linear(x[at : at + 8], layers[0].weight * masks[0], layers[0].bias)
        output = functional.linear(hidden.tanh(), layers[1].weight * masks[1], layers[1].bias)
        stepper.zero_grad()
        functional.mse_loss(output, y[at : at + 8]).backward()
        stepper.step()
        with torch.no_grad():
            for layer, mask in zip(layers, masks, strict=True):
                layer.weight *= mask
    module = Module()
    module.optimizer = optimizer
    fit(module, MagnitudePruning(final, begin, end, every, scope=scope))
    assert zero_share(module) == pytest.approx(final, abs=0.01)
    for (name, ours), theirs in zip(module.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name, rtol=1e-4, atol=1e-6)


def test_the_share_follows_the_ramp_to_the_last_step() -> None:
    shares = Shares()
    fit(Module(), MagnitudePruning(0.8, end="100%", every="1ep"), shares)
    for epoch in range(1, EPOCHS + 1):
        expected = 0.8 * (1 - (1 - epoch / EPOCHS) ** 3)
        assert shares.seen[epoch * BATCHES - 1] == pytest.approx(expected, abs=0.01)
    assert shares.seen == sorted(shares.seen)
    assert len(set(shares.seen)) == 1 + EPOCHS


def test_a_ramp_of_no_length_prunes_at_once() -> None:
    shares = Shares()
    fit(Module(), MagnitudePruning(0.5, begin=7, end=7), shares)
    assert shares.seen[5] < 0.1
    assert set(shares.seen[6:]) == {0.5}


def run_of_two(technique: Any, tmp_path: Path, stop: int) -> tuple[list[float], list[float]]:
    """Return the shares of zeros of a whole run, and of one that is resumed in the middle."""
    whole, first, second = Shares(), Shares(), Shares()
    fit(Module(), technique(), whole)
    saving = ModelCheckpoint(tmp_path, filename="one", every_n_train_steps=stop)
    fit(Module(), technique(), first, saving, StopAfter(stop))
    fit(Module(), technique(), second, resume=tmp_path / "one.ckpt")
    return whole.seen, first.seen[:stop] + second.seen


def test_lightnings_pruning_compounds_and_forgets_and_this_does_not(tmp_path: Path) -> None:
    def lightnings() -> ModelPruning:
        return ModelPruning("l1_unstructured", amount=0.3, parameter_names=["weight"], verbose=0)

    def ours() -> MagnitudePruning:
        return MagnitudePruning(0.7, begin=0, end=35, every=5)

    def shares(callback: Callback, **arguments: Any) -> list[float]:
        seen = Shares()

        class AtEpochs(Callback):
            def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
                seen.seen.append(zero_share(pl_module))

        module = Module()
        fit(module, callback, AtEpochs(), **arguments)
        return [*seen.seen, zero_share(module)]

    # 0.3 was asked for, and 1 - 0.7 ** 4 are gone after four epochs
    theirs = shares(lightnings())
    assert theirs[-1] == pytest.approx(1 - 0.7**EPOCHS, abs=0.02)
    saving = ModelCheckpoint(tmp_path / "theirs", filename="one", every_n_epochs=3)
    fit(Module(), lightnings(), saving, max_epochs=3)
    resumed = shares(lightnings(), resume=tmp_path / "theirs" / "one.ckpt")
    assert resumed[-1] < theirs[-1] - 0.1
    print(f"ModelPruning(amount=0.3): {theirs[-1]:.3f}, resumed {resumed[-1]:.3f}")
    whole, in_two = run_of_two(ours, tmp_path / "ours", stop=3 * BATCHES)
    assert whole == in_two
    assert whole[-1] == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("stop", [3, 10, 14, 37])
def test_a_resume_is_bitwise_the_whole_run(stop: int, tmp_path: Path) -> None:
    technique = MagnitudePruning(0.7, begin=4, end=32, every=7, scope="layer")
    whole, resumed = Module(), Module()
    fit(whole, copy.deepcopy(technique))
    saving = ModelCheckpoint(tmp_path, filename="one", every_n_train_steps=stop, save_top_k=1)
    fit(Module(), copy.deepcopy(technique), saving, StopAfter(stop))
    fit(resumed, copy.deepcopy(technique), resume=tmp_path / "one.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_checkpoints_hold_zeros_and_a_bit_for_each_weight(tmp_path: Path) -> None:
    module = Module()
    saving = ModelCheckpoint(tmp_path, filename="one")
    fit(module, MagnitudePruning(0.75), saving)
    checkpoint = torch.load(tmp_path / "one.ckpt", weights_only=True)
    state = checkpoint["state_dict"]
    assert list(state) == list(Module().state_dict())
    zeros = [state[f"net.{layer}.weight"] == 0 for layer in (0, 2)]
    assert sum(int(one.sum()) for one in zeros) == 108  # of 144
    assert not any(w.signbit()[zero].any() for w, zero in zip(weights(module), zeros, strict=True))
    (saved,) = (s for k, s in checkpoint["callbacks"].items() if k.startswith("Magnitude"))
    assert [mask.numel() for mask in saved["masks"].values()] == [12, 6]
    loaded = Module.load_from_checkpoint(tmp_path / "one.ckpt", weights_only=True)
    assert zero_share(loaded) == 0.75


def test_only_compression_makes_a_file_smaller() -> None:
    def sizes(sparsity: float) -> tuple[int, int]:
        module = Module()
        module.net[0], module.net[2] = nn.Linear(6, 2000), nn.Linear(2000, 3)
        if sparsity:
            fit(module, MagnitudePruning(sparsity), max_epochs=2)
        buffer = io.BytesIO()
        torch.save([w.detach() for w in weights(module)], buffer)
        return len(buffer.getvalue()), len(gzip.compress(buffer.getvalue()))

    (plain, plain_gz), (pruned, pruned_gz) = sizes(0.0), sizes(0.9)
    assert pruned == plain
    assert pruned_gz < 0.3 * plain_gz


def test_the_share_is_logged_at_the_logging_interval(tmp_path: Path) -> None:
    halves = [
        MagnitudePruning(0.5, 0, 0, parameters=["net.0.weight"]),
        MagnitudePruning(0.25, 0, 0, parameters=["net.2.weight"]),
    ]
    fit(Module(), *halves, logger=CSVLogger(tmp_path), log_every_n_steps=20)
    (path,) = tmp_path.rglob("metrics.csv")
    head, *rows = (line.split(",") for line in path.read_text().split())
    logged = [{name: row[head.index(name)] for name in head} for row in rows]
    assert [row["pruned_share_2"] for row in logged] == ["0.25"] * 2
    assert [row["step"] for row in logged] == ["19", "39"]
    assert all(row["pruned_share"] == "0.5" for row in logged)


def test_biases_are_pruned_on_request_only() -> None:
    module = Module()
    fit(module, MagnitudePruning(0.5, parameters="all"))
    everything = torch.cat([parameter.flatten() for parameter in module.parameters()])
    assert int((everything == 0).sum()) == round(0.5 * everything.numel())
    module = Module()
    fit(module, MagnitudePruning(0.9))
    assert all((layer.bias != 0).all() for layer in (module.net[0], module.net[2]))


def test_one_shot_with_the_function_and_fine_tuning_keeps_the_zeros() -> None:
    module = Module()
    fit(module)
    masks = prune_by_magnitude_(weights(module), 0.5)
    fit(module, MagnitudePruning(0.5, begin=0, end=0))
    for weight, mask in zip(weights(module), masks, strict=True):
        assert torch.equal(weight != 0, mask)


def test_accumulation_counts_steps() -> None:
    shares = Shares()
    fit(Module(), MagnitudePruning(0.5, begin=0, end=8, every=2), shares, accumulate_grad_batches=5)
    assert shares.seen[-1] == 0.5  # 8 steps in 40 batches
    assert len(set(shares.seen)) == 5
    assert shares.seen[8] != shares.seen[9]


def test_a_copy_in_mid_training_is_no_part_of_it() -> None:
    copies: list[Any] = []

    class Copy(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            copies.append(copy.deepcopy(trainer.callbacks[0]))

    fit(Module(), MagnitudePruning(0.5), Copy())
    module = Module()
    fit(module, copies[0])
    assert zero_share(module) == 0.5
