"""EMA against Lightning's callback and against formulas."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Checkpoint,
    EMAWeightAveraging,
    ModelCheckpoint,
    OnExceptionCheckpoint,
)
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import EMA, CheckpointError, NoEffectWarning, TensorLoader, update_average_
from tests.quiet import QUIET

EPOCHS, BATCHES = 2, 4


class Module(LightningModule):
    """A batch norm, tied weights, and a buffer that is replaced at every step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
        self.net[2].weight = self.net[0].weight
        self.register_buffer("replaced", torch.zeros(2))
        self.validated: list[Tensor] = []
        self.after: list[dict[str, Tensor]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        self.replaced = self.replaced + x[0, :2]
        return functional.mse_loss(self.net(x), y)

    def on_train_batch_end(self, *_: Any) -> None:
        self.after.append({k: v.clone() for k, v in self.state_dict().items()})

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(self.net[0].weight.detach().clone())
        self.log("val_loss", functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def loader() -> TensorLoader:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(8 * BATCHES, 3, generator=generator) for _ in range(2))
    return TensorLoader(x, y, batch_size=8, shuffle=True)


def fit(
    module: LightningModule,
    *callbacks: Callback,
    resume: Path | None = None,
    **settings: Any,
) -> Trainer:
    saving = any(isinstance(callback, Checkpoint) for callback in callbacks)
    defaults = {**QUIET, "enable_checkpointing": saving, "max_epochs": EPOCHS, "devices": 1}
    trainer = Trainer(**{**defaults, **settings}, callbacks=list(callbacks))
    trainer.fit(module, loader(), loader(), ckpt_path=resume)
    return trainer


def assert_close(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    for name, value in left.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, right[name], msg=name)


def test_it_does_what_lightnings_does(tmp_path: Path) -> None:
    runs = []
    for average in (EMA(0.8), EMAWeightAveraging(decay=0.8)):
        module = Module()
        saved = ModelCheckpoint(tmp_path, filename=type(average).__name__)
        trainer = fit(module, average, saved)
        checkpoint = torch.load(saved.best_model_path, weights_only=True)
        runs.append((module, checkpoint, trainer.callback_metrics["val_loss"]))
    (ours, our_checkpoint, our_loss), (theirs, their_checkpoint, their_loss) = runs
    assert_close(ours.state_dict(), theirs.state_dict())
    for name in ("state_dict", "current_model_state"):
        assert our_checkpoint[name].keys() == their_checkpoint[name].keys()
        assert_close(our_checkpoint[name], their_checkpoint[name])
    torch.testing.assert_close(our_loss, their_loss)
    torch.testing.assert_close(torch.stack(ours.validated), torch.stack(theirs.validated))
    assert int(ours.net[1].num_batches_tracked) == EPOCHS * BATCHES
    assert (ours.net[0].weight - ours.after[-1]["net.0.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize(("every", "start", "taken"), [(3, 0, [0, 3, 6]), (2, "50%", [4, 6])])
def test_when_it_is_updated(every: int, start: int | str, taken: list[int]) -> None:
    module = Module()
    fit(module, EMA(0.6, every, start))
    average = {k: v.double() for k, v in module.after[taken[0]].items()}
    for step in taken[1:]:
        average = {k: 0.6 * v + 0.4 * module.after[step][k] for k, v in average.items()}
    for name in ("net.0.weight", "net.1.running_mean", "replaced"):
        torch.testing.assert_close(module.state_dict()[name].double(), average[name], msg=name)


def test_before_its_start_the_weights_are_validated() -> None:
    module = Module()
    fit(module, EMA(0.9, start="1ep"), num_sanity_val_steps=0)
    assert torch.equal(module.validated[0], module.after[BATCHES - 1]["net.0.weight"])
    assert not torch.equal(module.validated[-1], module.after[-1]["net.0.weight"])


def test_a_start_that_never_comes_is_told() -> None:
    with pytest.warns(NoEffectWarning, match="start is step 8"):
        fit(Module(), EMA(0.9, start="2ep"))


def test_a_step_counts_once_under_accumulation() -> None:
    module = Module()
    fit(module, EMA(0.5), accumulate_grad_batches=2)
    expected = module.after[1]["net.0.weight"]
    for step in (3, 5, 7):
        expected = (expected + module.after[step]["net.0.weight"]) / 2
    torch.testing.assert_close(module.net[0].weight.data, expected)


def test_every_checkpoint_holds_the_average(tmp_path: Path) -> None:
    module = Module()
    weights_only = ModelCheckpoint(tmp_path, filename="weights", save_weights_only=True)
    trainer = fit(module, EMA(0.8), weights_only)
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    for name in ("weights", "after"):
        checkpoint = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        assert "current_model_state" not in checkpoint
        loaded = Module.load_from_checkpoint(tmp_path / f"{name}.ckpt")
        assert_close(loaded.state_dict(), module.state_dict())


class Save(Callback):
    """Saves a checkpoint in one hook."""

    def __init__(self, hook: str, path: Path) -> None:
        setattr(self, hook, lambda trainer, *_: trainer.save_checkpoint(path))


class StopAfterEpoch(Callback):
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.should_stop = True


@pytest.mark.parametrize("hook", ["on_train_end", "on_validation_batch_end"])
def test_checkpoints_saved_while_the_average_is_in_the_module(hook: str, tmp_path: Path) -> None:
    path = tmp_path / "saved.ckpt"
    whole, part, after = Module(), Module(), Module()
    fit(whole, EMA(0.8))
    fit(part, EMA(0.8), StopAfterEpoch(), Save(hook, path), num_sanity_val_steps=0)
    checkpoint = torch.load(path, weights_only=True)
    assert_close(checkpoint["state_dict"], part.state_dict())
    last = part.after[-1]
    assert torch.equal(checkpoint["current_model_state"]["net.0.weight"], last["net.0.weight"])
    if hook == "on_train_end":
        fit(after, EMA(0.8), resume=path)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, after.state_dict()[name]), name


def test_a_checkpoint_saved_after_training_resumes_exactly(tmp_path: Path) -> None:
    whole, part, after = Module(), Module(), Module()
    fit(whole, EMA(0.8), max_epochs=3)
    trainer = fit(part, EMA(0.8), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    fit(after, EMA(0.8), resume=tmp_path / "after.ckpt", max_epochs=3)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name


def test_validation_after_training_leaves_the_average_where_it_is() -> None:
    module = Module()
    trainer = fit(module, EMA(0.8))
    average = module.net[0].weight.detach().clone()
    module.validated.clear()
    trainer.validate(module, loader(), verbose=False)
    assert all(
        torch.equal(weights, average) for weights in [*module.validated, module.net[0].weight]
    )

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    module.validation_step = fail  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        trainer.validate(module, loader(), verbose=False)
    assert torch.equal(module.net[0].weight, average)


def test_the_modules_own_hook_after_validation_has_the_current_weights() -> None:
    class Looks(Module):
        def on_validation_epoch_end(self) -> None:
            self.looked = self.net[0].weight.detach().clone()

    module = Looks()
    fit(module, EMA(0.8), num_sanity_val_steps=0)
    assert torch.equal(module.looked, module.after[-1]["net.0.weight"])
    assert not torch.equal(module.looked, module.validated[-1])


class Fails(Module):
    failing = True

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.failing and self.current_epoch == 1:
            raise ZeroDivisionError
        return super().training_step(batch, batch_idx)


def test_a_checkpoint_saved_at_an_exception_has_the_average_too(tmp_path: Path) -> None:
    part, after = Fails(), Module()
    with pytest.raises(ZeroDivisionError):
        fit(part, EMA(0.5), OnExceptionCheckpoint(tmp_path, "failed"))
    fit(after, EMA(0.5), resume=tmp_path / "failed.ckpt")
    expected = part.after[0]["net.0.weight"]
    # Lightning goes on after the batch that failed
    assert len(part.after) == BATCHES
    assert len(after.after) == BATCHES - 1
    for step in [*part.after[1:], *after.after]:
        expected = (expected + step["net.0.weight"]) / 2
    torch.testing.assert_close(after.net[0].weight.data, expected)


def test_an_exception_in_validation_leaves_the_current_weights() -> None:
    class FailsInValidation(Module):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            raise ZeroDivisionError

    module = FailsInValidation()
    with pytest.raises(ZeroDivisionError):
        fit(module, EMA(0.8), num_sanity_val_steps=0)
    assert torch.equal(module.net[0].weight, module.after[-1]["net.0.weight"])


def test_another_average_does_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    fit(Module(), EMA(0.8), Save("on_train_end", tmp_path / "saved.ckpt"))
    with pytest.raises(CheckpointError, match=r"EMA\(decay=0.8\), but this run has EMA\(decay=0.9"):
        fit(Module(), EMA(0.9), resume=tmp_path / "saved.ckpt", max_epochs=3)


def test_it_begins_at_a_checkpoint_without_an_average(tmp_path: Path) -> None:
    fit(Module(), StopAfterEpoch(), Save("on_train_end", tmp_path / "saved.ckpt"))
    module = Module()
    fit(module, EMA(0.5), resume=tmp_path / "saved.ckpt")
    expected = module.after[0]["net.0.weight"]
    for after in module.after[1:]:
        expected = (expected + after["net.0.weight"]) / 2
    torch.testing.assert_close(module.net[0].weight.data, expected)


def test_layers_that_change_in_training_start_afresh() -> None:
    class Surgery(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                pl_module.net[1] = nn.Identity()
                pl_module.net.append(nn.Linear(3, 3))
                trainer.optimizers[0].add_param_group({"params": pl_module.net[3].parameters()})

    module = Module()
    fit(module, EMA(0.5), Surgery())
    first = module.after[BATCHES]["net.0.weight"]
    assert not torch.equal(module.net[0].weight, first)
    initial = module.after[BATCHES]["net.3.weight"]
    assert not torch.equal(module.net[3].weight, initial)
    assert torch.equal(module.state_dict()["net.0.weight"], module.state_dict()["net.2.weight"])


def test_the_pure_function() -> None:
    generator = torch.Generator().manual_seed(0)
    averages = [torch.randn(3, generator=generator), torch.tensor([5])]
    values = [torch.randn(3, generator=generator), torch.tensor([9])]
    expected = 0.7 * averages[0] + 0.3 * values[0]
    update_average_(averages, values, 0.7)
    torch.testing.assert_close(averages[0], expected)
    assert averages[1].tolist() == [9]
    update_average_(averages[:1], values[:1], 0.0)
    assert torch.equal(averages[0], values[0])
    update_average_([], [], 0.5)
