"""Lookahead against loops written by hand."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, OnExceptionCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import CheckpointError, Lookahead, TensorLoader, look_ahead_
from tests.quiet import QUIET

BATCHES = 5


def batches() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(8 * BATCHES, 3, generator=generator) for _ in range(2))
    return x, y


class Module(LightningModule):
    """Returns an infinite gradient in the batches of ``overflows``, none in those of ``skips``."""

    overflows: tuple[int, ...] = ()
    skips: tuple[int, ...] = ()
    fused = False

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx in self.skips:
            return None
        x, y = batch
        loss = functional.mse_loss(self.net(x), y)
        return loss * float("inf") if batch_idx in self.overflows else loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.3, momentum=0.9, fused=self.fused)


def fit(
    module: LightningModule, *callbacks: Callback, resume: Path | None = None, **settings: Any
) -> Trainer:
    saving = any(isinstance(callback, Checkpoint) for callback in callbacks)
    defaults = {**QUIET, "enable_checkpointing": saving, "max_epochs": 2, "devices": 1}
    trainer = Trainer(**{**defaults, **settings}, callbacks=list(callbacks))
    trainer.fit(module, TensorLoader(*batches(), batch_size=8), ckpt_path=resume)
    return trainer


def by_hand(module: Module, k: int, alpha: float, epochs: int = 2) -> None:
    optimizer = module.configure_optimizers()
    slow = [p.detach().clone() for p in module.parameters()]
    steps = 0
    for _ in range(epochs):
        for index, (x, y) in enumerate(zip(*(part.split(8) for part in batches()), strict=True)):
            if index in (*module.overflows, *module.skips):
                continue
            optimizer.zero_grad()
            functional.mse_loss(module.net(x), y).backward()
            optimizer.step()
            steps += 1
            if steps % k == 0:
                for i, parameter in enumerate(module.parameters()):
                    slow[i] = slow[i] + alpha * (parameter.detach() - slow[i])
                    parameter.data.copy_(slow[i])


def assert_same(left: Module, right: Module, **tolerance: float) -> None:
    for name, value in left.state_dict().items():
        torch.testing.assert_close(value, right.state_dict()[name], msg=name, **tolerance)


@pytest.mark.parametrize(("k", "alpha"), [(1, 0.5), (3, 0.8), (4, 0.2)])
def test_training_is_the_papers(k: int, alpha: float) -> None:
    ours, reference = Module(), Module()
    fit(ours, Lookahead(k, alpha))
    by_hand(reference, k, alpha)
    assert_same(ours, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_16_bits_skip_do_not_count(fused: bool) -> None:
    class Overflows(Module):
        overflows = (1, 2)

    Overflows.fused = fused
    ours, reference = Overflows(), Overflows()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    fit(ours, Lookahead(3, 0.5), plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    by_hand(reference, 3, 0.5)
    wrong = Module()
    wrong.load_state_dict(Overflows().state_dict())
    assert_same(ours, reference, rtol=0.05, atol=0.02)
    by_hand(wrong, 4, 0.5)
    with pytest.raises(AssertionError):
        assert_same(ours, wrong, rtol=0.05, atol=0.02)


def test_steps_without_gradients_do_not_count() -> None:
    class Skips(Module):
        skips = (0, 3)

    ours, reference = Skips(), Skips()
    fit(ours, Lookahead(2, 0.5))
    by_hand(reference, 2, 0.5)
    assert_same(ours, reference, rtol=1e-5, atol=1e-6)


def test_parameters_that_come_later_begin_at_the_next_return() -> None:
    class Adds(Callback):
        seen: list[Tensor]

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.seen = []

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                trainer.optimizers[0].add_param_group({"params": pl_module.net[2].parameters()})

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self.seen.append(pl_module.net[2].weight.detach().clone())

    class Partly(Module):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.net[0].parameters(), lr=0.3)

    adds = Adds()
    fit(Partly(), Lookahead(5, 0.5), adds, max_epochs=3)
    start, end = adds.seen[9], adds.seen[14]
    before_return = adds.seen[13]
    assert not torch.equal(start, adds.seen[4])
    assert (end - start).norm() < (before_return - start).norm()


class Save(Callback):
    def __init__(self, hook: str, path: Path) -> None:
        setattr(self, hook, lambda trainer, *_: trainer.save_checkpoint(path))


def test_a_checkpoint_saved_after_training_resumes_exactly(tmp_path: Path) -> None:
    whole, part, after = Module(), Module(), Module()
    fit(whole, Lookahead(3), max_epochs=3)
    trainer = fit(part, Lookahead(3), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    fit(after, Lookahead(3), resume=tmp_path / "after.ckpt", max_epochs=3)
    assert_same(after, whole, rtol=0, atol=0)


def test_a_checkpoint_saved_at_an_exception_has_the_slow_weights(tmp_path: Path) -> None:
    class Fails(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.global_step == 4:
                raise ZeroDivisionError
            return super().training_step(batch, batch_idx)

    module = Fails()
    with pytest.raises(ZeroDivisionError):
        fit(module, Lookahead(3), OnExceptionCheckpoint(tmp_path, "failed"))
    checkpoint = torch.load(tmp_path / "failed.ckpt", weights_only=True)
    state = checkpoint["callbacks"]["Lookahead(k=3)"]
    reference = Module()
    fit(reference, Lookahead(3), max_steps=3)
    assert state["counts"] == [4]
    torch.testing.assert_close(state["slow"][0], [p.data for p in reference.parameters()])


def test_it_begins_at_a_checkpoint_without_slow_weights(tmp_path: Path) -> None:
    trainer = fit(Module(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    ours, reference = Module(), Module()
    fit(ours, Lookahead(1, 0.001), resume=tmp_path / "saved.ckpt")
    reference.load_state_dict(torch.load(tmp_path / "saved.ckpt")["state_dict"])
    assert_same(ours, reference, rtol=0.01, atol=0.01)


def test_what_does_not_fit_a_checkpoint_is_refused(tmp_path: Path) -> None:
    trainer = fit(Module(), Lookahead(3))
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    with pytest.raises(CheckpointError, match=r"Lookahead\(k=3\), but this run has Lookahead\(k=4"):
        fit(Module(), Lookahead(4), resume=tmp_path / "saved.ckpt", max_epochs=3)
    checkpoint = torch.load(tmp_path / "saved.ckpt")
    for name, value in (("counts", [1, 2]), ("slow", [[torch.ones(2)]])):
        changed = copy.deepcopy(checkpoint)
        changed["callbacks"]["Lookahead(k=3)"][name] = value
        torch.save(changed, tmp_path / "changed.ckpt")
        with pytest.raises(CheckpointError, match=r"Lookahead\(k=3\): the checkpoint has"):
            fit(Module(), Lookahead(3), resume=tmp_path / "changed.ckpt", max_epochs=3)


def test_no_hook_is_left_and_no_weights_travel_with_a_copy() -> None:
    class Keeps(Module):
        def configure_optimizers(self) -> Any:
            self.kept = super().configure_optimizers()
            return self.kept

    module, lookahead = Keeps(), Lookahead(2)
    fit(module, lookahead)
    before = module.net[0].weight.detach().clone()
    module.kept.step()
    middle = module.net[0].weight.detach().clone()
    module.kept.step()
    assert (module.net[0].weight - before).norm() > (middle - before).norm()
    assert lookahead.extra_state()["counts"] == [2 * BATCHES]
    assert copy.deepcopy(lookahead).extra_state() == {"slow": [], "counts": []}


def test_the_pure_function() -> None:
    generator = torch.Generator().manual_seed(0)
    slow, fast = ([torch.randn(s, generator=generator) for s in (3, 2)] for _ in range(2))
    expected = [a + 0.3 * (b - a) for a, b in zip(slow, fast, strict=True)]
    look_ahead_(slow, fast, 0.3)
    torch.testing.assert_close(slow, expected)
    torch.testing.assert_close(fast, expected)
    before = [f.clone() for f in fast]
    slow = [torch.zeros_like(f) for f in fast]
    look_ahead_(slow, fast, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(fast, before, strict=True))
    look_ahead_([], [])
