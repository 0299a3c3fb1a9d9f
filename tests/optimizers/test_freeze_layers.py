"""FreezeLayers against loops by hand and against what torch does with requires_grad."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from lightning_dlopt.optimizers import FreezeLayers, freeze, unfreeze
from lightning_dlopt.optimizers.freezing import matches
from tests.optimizers.frozen import Module, X, Y, fit


@pytest.mark.parametrize("until", [3, "37.5%", "0.75ep"])
def test_until(until: Any) -> None:
    module = Module()
    snapshots = fit(module, FreezeLayers("encoder", until=until))
    assert snapshots.changed("encoder") == [False] * 3 + [True] * 5
    assert snapshots.changed("head") == [True] * 8
    assert module.flags == [[False] * 4 + [True] * 2] * 3 + [[True] * 6] * 5


def test_after() -> None:
    # momentum and weight decay would go on moving what has merely a gradient of zero
    snapshots = fit(Module(), FreezeLayers("encoder", after="1ep"))
    assert snapshots.changed("encoder") == [True] * 4 + [False] * 4
    assert snapshots.changed("head") == [True] * 8


def test_it_trains_as_a_loop_by_hand() -> None:
    module, twin = Module(), Module()
    fit(module, FreezeLayers("encoder", until=3, batch_norm="train"))
    optimizer = twin.configure_optimizers()
    frozen = freeze(twin, "encoder")
    for step in range(8):
        if step == 3:
            unfreeze(frozen)
        batch = slice(4 * (step % 4), 4 * (step % 4) + 4)
        optimizer.zero_grad()
        twin.loss(X[batch], Y[batch]).backward()
        optimizer.step()
    for name, value in twin.state_dict().items():
        assert torch.equal(value, module.state_dict()[name]), name


def test_the_statistics_of_frozen_layers() -> None:
    still = fit(Module(), FreezeLayers("encoder", until=3))
    going = fit(Module(), FreezeLayers("encoder", until=3, batch_norm="train"))
    only_weights = fit(Module(), FreezeLayers("*.weight", until=3, after=None))
    assert still.changed("encoder.1.running_mean") == [False] * 3 + [True] * 5
    assert going.changed("encoder.1.running_mean") == [True] * 8
    assert only_weights.changed("encoder.1.running_mean") == [True] * 8


def test_a_frozen_layer_normalizes_by_its_statistics() -> None:
    module, twin = Module(), Module()
    with torch.no_grad():
        for one in (module, twin):
            one.encoder[1].running_mean += 0.5
    fit(module, FreezeLayers("encoder", until="100%"), max_steps=1)
    optimizer = twin.configure_optimizers()
    frozen = freeze(twin, "encoder")
    twin.encoder[1].eval()
    twin.loss(X[:4], Y[:4]).backward()
    optimizer.step()
    assert torch.equal(twin.head.weight, module.head.weight)
    assert len(frozen) == 4


def test_modes_that_the_user_set_stay() -> None:
    module = Module()
    module.encoder[1].eval()
    snapshots = fit(module, FreezeLayers("encoder", until=3))
    assert snapshots.changed("encoder.1.running_mean") == [False] * 8
    assert not module.encoder[1].training
    module = Module()
    fit(module, FreezeLayers("encoder", after=3))
    assert module.encoder[1].training


def test_what_the_user_froze_stays_frozen() -> None:
    module = Module()
    module.encoder[0].bias.requires_grad_(False)
    snapshots = fit(module, FreezeLayers("encoder", until=3))
    assert snapshots.changed("encoder.0.bias") == [False] * 8
    assert snapshots.changed("encoder.0.weight") == [False] * 3 + [True] * 5
    assert not module.encoder[0].bias.requires_grad


@pytest.mark.parametrize("first", [False, True])
def test_gradual_unfreezing(first: bool) -> None:
    pair = [FreezeLayers("encoder", until=2), FreezeLayers("encoder.0", until=5)]
    module = Module()
    snapshots = fit(module, *(pair if first else pair[::-1]))
    assert snapshots.changed("encoder.0") == [False] * 5 + [True] * 3
    assert snapshots.changed("encoder.1") == [False] * 2 + [True] * 6
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("first", [False, True])
def test_statistics_that_two_hold(first: bool) -> None:
    pair = [FreezeLayers("encoder", until=2), FreezeLayers("encoder.1", until=5)]
    snapshots = fit(Module(), *(pair if first else pair[::-1]))
    assert snapshots.changed("encoder.1") == [False] * 5 + [True] * 3


def test_all_is_as_before_after_an_exception() -> None:
    class Crashes(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if batch_idx == 2:
                raise ZeroDivisionError
            return super().training_step(batch, batch_idx)

    module = Crashes()
    with pytest.raises(ZeroDivisionError):
        fit(module, FreezeLayers("encoder", until="100%"))
    assert module.flags[-1][:4] == [False] * 4
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(part.training for part in module.modules())


def test_the_clipping_norm_does_not_count_them() -> None:
    class Measures(Module):
        def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
            self.norms.append(float(nn.utils.clip_grad_norm_(self.parameters(), 0.01)))
            head = [parameter.grad.norm() for parameter in self.head.parameters()]
            assert float(torch.stack(head).norm()) == pytest.approx(0.01, rel=1e-3)

    module = Measures()
    fit(module, FreezeLayers("encoder", until="100%"))
    assert len(module.norms) == 8


class MakesGradients(Callback):
    """A penalty that doesn't care whether there is a gradient to add to."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for parameter in pl_module.parameters():
            parameter.grad = parameter.detach().clone()


@pytest.mark.parametrize("first", [False, True])
def test_no_penalty_moves_them(first: bool) -> None:
    pair = [FreezeLayers("encoder", until=3), MakesGradients()]
    snapshots = fit(Module(), *(pair if first else pair[::-1]), gradient_clip_val=0.1)
    assert snapshots.changed("encoder") == [False] * 3 + [True] * 5


def test_accumulation_counts_steps() -> None:
    snapshots = fit(Module(), FreezeLayers("encoder", until=1), accumulate_grad_batches=2)
    assert snapshots.changed("encoder.0") == [False] * 3 + [True] + [False, True] * 2


def test_mixed_precision_with_a_scaler() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    plugins = [MixedPrecision("16-mixed", "cpu", scaler)]
    snapshots = fit(Module(), FreezeLayers("encoder", until=3), plugins=plugins)
    assert snapshots.changed("encoder") == [False] * 3 + [True] * 5


def test_names() -> None:
    module = Module()
    names = [name for name, _ in module.named_parameters()]
    for pattern, expected in {
        "encoder": 4,
        "encoder.*": 4,
        "encoder.0": 2,
        "enc*": 4,
        "*.bias": 3,
        "head.weight": 1,
        "ENCODER": 0,
        "enc": 0,
        "encoder.[01]": 4,
    }.items():
        assert sum(matches(name, pattern) for name in names) == expected, pattern


def test_a_shared_parameter_is_found_under_any_name() -> None:
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    assert [id(p) for p in freeze(tied, ["1.weight"])] == [id(tied[0].weight)]


def test_the_function_drops_gradients() -> None:
    module = Module()
    module.loss(X, Y).backward()
    frozen = freeze(module, ["encoder"])
    assert all(parameter.grad is None for parameter in frozen)
    assert module.head.weight.grad is not None
    with pytest.raises(ValueError, match="'body'"):
        freeze(module, "body")
