"""ChannelsLast against torch's own conversion, and what it leaves behind."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_dlopt import (
    EMA,
    ChannelsLast,
    NoEffectWarning,
    SqueezeExcite,
    TechniqueError,
    to_channels_last,
)
from tests.contract.processes import call_on_ranks
from tests.structure.images import Images, assert_same, fit, loader, trainer_with


def all_last(module: nn.Module) -> bool:
    return all(p.stride()[1] == 1 for p in module.parameters() if p.dim() == 4)


def usual(module: nn.Module) -> bool:
    return all(p.stride() == torch.empty(p.shape).stride() for p in module.parameters())


class Watch(Callback):
    """Notes whether every layer of every network gives its output with the channels last."""

    def __init__(self) -> None:
        self.outputs: set[tuple[str, bool]] = set()
        self.hooks: list[Any] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def note(part: nn.Module, _: Any, output: Tensor) -> None:
            if output.dim() == 4:
                self.outputs.add((type(part).__name__, output.stride()[1] == 1))

        self.hooks = [part.register_forward_hook(note) for part in pl_module.modules()]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for hook in self.hooks:
            hook.remove()


class Fails(Images):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert all_last(self)
        if batch_idx == 1:
            raise ZeroDivisionError("its own")
        return super().training_step(batch, batch_idx)


def test_it_trains_as_a_module_that_torch_has_converted() -> None:
    converted = Images().to(memory_format=torch.channels_last)
    # torch leaves the kernels of 1 x 1, whose layout is ambiguous
    converted.net[0].weight.data = to_strides(converted.net[0].weight)
    assert_same(fit(Images(), ChannelsLast()), fit(converted))


def to_strides(weight: Tensor) -> Tensor:
    return torch.empty_like(weight, memory_format=torch.channels_last).copy_(weight.detach())


def test_the_layout_goes_through_the_network() -> None:
    watch = Watch()
    fit(Images(), ChannelsLast(), watch)
    assert watch.outputs == {
        (name, True) for name in ("Conv2d", "ReLU", "MaxPool2d", "AdaptiveAvgPool2d")
    }


def test_the_function() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv3d(2, 4, 3), nn.Linear(2, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    same = list(network.parameters())
    network[0](torch.randn(1, 2, 5, 5)).sum().backward()
    assert to_channels_last(network, ["0"]) == ["0.weight"]
    assert to_channels_last(network) == ["1.weight"]
    assert to_channels_last(network) == []
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert network[0].weight.grad.stride() == network[0].weight.stride()
    assert network[1].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert [id(p) for p in network.parameters()] == [id(p) for p in same]
    assert_same(before, network.state_dict())
    network.load_state_dict(before)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="no module's name matches 'decoder'"):
        to_channels_last(network, ["decoder"])


@pytest.mark.parametrize("first", [True, False])
def test_it_comes_after_surgery_wherever_it_is_listed(first: bool) -> None:
    class Strides(Callback):
        seen: dict[str, bool] = {}  # noqa: RUF012

        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.seen = {
                n: p.stride()[1] == 1 for n, p in pl_module.named_parameters() if p.dim() == 4
            }

    strides, excite = Strides(), SqueezeExcite(reduction=2, min_channels=8)
    pair = [ChannelsLast(), excite] if first else [excite, ChannelsLast()]
    module = Images()
    fit(module, *pair, strides)
    assert strides.seen["net.2.1.fc1.weight"]
    assert strides.seen["net.2.0.weight"]
    assert usual(module)


@pytest.mark.parametrize("first", [True, False])
def test_a_model_that_is_made_late(first: bool) -> None:
    class Late(Images):
        def __init__(self) -> None:
            super().__init__()
            del self.net

        def configure_model(self) -> None:
            if not hasattr(self, "net"):
                self.net = Images().net

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            assert all_last(self)
            return super().training_step(batch, batch_idx)

    excite = SqueezeExcite(reduction=2, min_channels=8)
    pair = [ChannelsLast(), excite] if first else [excite, ChannelsLast()]
    assert_same(fit(Late(), *pair), fit(Images(), *pair))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("begun_with", [True, False])
def test_a_run_goes_on_with_it_or_without_it(
    begun_with: bool, fused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's fused optimizers would take the wrong elements of a state of another layout."""
    monkeypatch.setitem(Images.options, "fused", fused)
    whole = fit(Images(), max_epochs=4)
    first, second = ([ChannelsLast()], []) if begun_with else ([], [ChannelsLast()])
    saving = ModelCheckpoint(tmp_path, filename="last")
    fit(Images(), *first, saving)
    resumed = fit(Images(), *second, resume=tmp_path / "last.ckpt", max_epochs=4)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_an_optimizer_that_the_module_keeps() -> None:
    class Keeps(Images):
        kept: Any = None

        def configure_optimizers(self) -> Any:
            if self.kept is None:
                self.kept = super().configure_optimizers()
            return self.kept

    runs = []
    for techniques in ([], [ChannelsLast()]):
        module = Keeps()
        fit(module, *techniques)
        assert usual(module)
        fit(module)  # goes on without it
        runs.append(fit(module, *techniques))
    for name, value in runs[0].items():
        torch.testing.assert_close(runs[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_nothing_is_left_and_every_stage_has_it(tmp_path: Path) -> None:
    class Asks(Images):
        asked = 0

        def forward(self, x: Tensor) -> Any:
            assert all_last(self)
            self.asked += 1
            return super().forward(x)

    module = Asks()
    technique = ChannelsLast()
    saving = ModelCheckpoint(tmp_path, filename="last")
    trainer = trainer_with(technique, saving)
    trainer.fit(module, loader(), loader())
    assert usual(module)
    expected = trainer.test(module, loader(), verbose=False)
    assert usual(module)
    trainer.validate(module, loader(), verbose=False)
    trainer.predict(module, loader())
    assert module.asked == 2 * 6 + 2 + 3 * 3
    again = trainer_with(ChannelsLast())
    assert again.test(Asks(), loader(), ckpt_path=tmp_path / "last.ckpt", verbose=False) == expected
    failing = Fails()
    with pytest.raises(ZeroDivisionError):
        fit(failing, ChannelsLast())
    assert usual(failing)


def test_a_surgery_is_restored_before_it_in_a_test(tmp_path: Path) -> None:
    class Asks(Images):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            assert self.net[2][1].fc1.weight.stride()[1] == 1
            super().test_step(batch, batch_idx)

    excite, path = SqueezeExcite(reduction=2, min_channels=8), tmp_path / "last.ckpt"
    module = Asks()
    trainer = trainer_with(ChannelsLast(), excite, ModelCheckpoint(tmp_path, filename="last"))
    trainer.fit(module, loader())
    expected = trainer.test(module, loader(), verbose=False)
    tester = trainer_with(ChannelsLast(["net.2.*"]), SqueezeExcite(reduction=2, min_channels=8))
    (result,) = tester.test(Asks(), loader(), ckpt_path=path, verbose=False)
    assert result["test_loss"] == pytest.approx(expected[0]["test_loss"], rel=1e-5)


def test_an_average_beside_it() -> None:
    left, right = fit(Images(), EMA(0.8)), fit(Images(), EMA(0.8), ChannelsLast())
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_what_has_no_effect_and_what_is_wrong() -> None:
    class Linear(Images):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(128, 3))

    with pytest.warns(NoEffectWarning, match=r"ChannelsLast\(\) has no effect: among its target"):
        fit(Linear(), ChannelsLast())
    with pytest.warns(NoEffectWarning, match="last already"):
        fit(Linear().to(memory_format=torch.channels_last), ChannelsLast())
    module = Images()
    with pytest.raises(TechniqueError, match="no module's name matches 'decoder'"):
        fit(module, ChannelsLast(target=["decoder"]))
    assert usual(module)


def on_rank(rank: int, folder: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        weights = fit(Images(), ChannelsLast(), strategy="ddp", devices=2)
    messages = [str(warning.message) for warning in told]
    assert not any("strides" in message for message in messages), messages
    torch.save(weights, folder / f"{rank}.pt")


@pytest.mark.slow
def test_the_buckets_of_two_processes_have_the_layout(tmp_path: Path) -> None:
    """Torch warns of gradients that lie in memory in another way than the buckets made for them."""
    call_on_ranks(on_rank, tmp_path, folder=tmp_path)
    assert_same(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(2)))
