"""Resume with the real Trainer: the batches seen before and after a stop are those of one run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_dlopt.core.errors import CheckpointError
from lightning_dlopt.data import DecodingLoader, Digits, ResumableLoader, TensorLoader
from tests.quiet import QUIET


class Recorder(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[list[int]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        inputs, targets = batch
        self.seen.append(targets.tolist())
        return self.layer(inputs).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.layer(batch[0]).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


class SaveAt(Callback):
    """Save in ``hook`` at its ``call``-th call."""

    def __init__(self, path: Path, hook: str, call: int) -> None:
        self.path, self.calls, self.call = path, 0, call
        setattr(self, hook, self._save)

    def _save(self, trainer: Trainer, *args: Any) -> None:
        self.calls += not trainer.sanity_checking
        if self.calls == self.call and not self.path.exists():
            self.seen = len(trainer.lightning_module.seen)  # type: ignore[arg-type]
            trainer.save_checkpoint(self.path)


def tensor_loader(shuffle: bool = True) -> TensorLoader:
    inputs, targets = torch.arange(22.0).unsqueeze(1), torch.arange(22)
    return TensorLoader(inputs, targets, batch_size=4, shuffle=shuffle, seed=3)


def decoding_loader(shuffle: bool = True) -> DecodingLoader:
    samples = [(torch.tensor([float(i)]), i) for i in range(22)]
    return DecodingLoader(samples, batch_size=4, shuffle=shuffle, seed=3, num_workers=1)


def fit(
    folder: Path, loader: ResumableLoader[Any], ckpt_path: Path | None = None, **arguments: Any
) -> Recorder:
    module = Recorder()
    checkpointing = bool(arguments.pop("checkpointing", False))
    trainer = quiet_trainer(
        folder,
        enable_checkpointing=checkpointing,
        num_sanity_val_steps=1,
        **{"max_epochs": 3, **arguments},
    )
    trainer.fit(module, loader, tensor_loader(shuffle=False), ckpt_path=ckpt_path)
    return module


@pytest.mark.parametrize(
    ("hook", "call"),
    [
        ("on_train_batch_end", 1),
        ("on_train_batch_end", 5),
        ("on_train_batch_end", 6),
        ("on_train_batch_end", 9),
        ("on_train_batch_end", 12),
        ("on_validation_end", 1),
        ("on_validation_end", 2),
        ("on_train_epoch_end", 1),
        ("on_train_epoch_end", 2),
    ],
)
@pytest.mark.parametrize("make", [tensor_loader, decoding_loader])
def test_resumed_run_sees_exactly_the_remaining_batches(
    tmp_path: Path, make: Callable[[], ResumableLoader[Any]], hook: str, call: int
) -> None:
    if make is decoding_loader and (hook, call) not in {
        ("on_train_batch_end", 5),
        ("on_train_epoch_end", 1),
    }:
        make = tensor_loader  # starting workers costs time, and the state is shared code
    save = SaveAt(tmp_path / "stop.ckpt", hook, call)
    whole = fit(tmp_path, make(), callbacks=[save])
    assert len(whole.seen) == 18
    resumed = fit(tmp_path, make(), ckpt_path=save.path)
    assert resumed.seen == whole.seen[save.seen :]


def test_model_checkpoint_every_few_steps(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
    whole = fit(tmp_path, tensor_loader(), callbacks=[checkpoint], checkpointing=True)
    for step in (4, 8, 16):
        resumed = fit(tmp_path, tensor_loader(), ckpt_path=tmp_path / f"step={step}.ckpt")
        assert resumed.seen == whole.seen[step:]


def test_run_that_was_stopped_by_max_steps_in_mid_epoch(tmp_path: Path) -> None:
    whole = fit(tmp_path, tensor_loader())
    checkpoint = ModelCheckpoint(tmp_path, "last", every_n_train_steps=1)
    stopped = fit(
        tmp_path, tensor_loader(), callbacks=[checkpoint], checkpointing=True, max_steps=8
    )
    resumed = fit(tmp_path, tensor_loader(), ckpt_path=tmp_path / "last.ckpt")
    assert stopped.seen + resumed.seen == whole.seen


def test_resume_with_accumulation_and_validation_inside_the_epoch(tmp_path: Path) -> None:
    arguments = {"accumulate_grad_batches": 2, "val_check_interval": 3}
    save = SaveAt(tmp_path / "stop.ckpt", "on_train_batch_end", 10)
    whole = fit(tmp_path, tensor_loader(), callbacks=[save], **arguments)
    resumed = fit(tmp_path, tensor_loader(), ckpt_path=save.path, **arguments)
    assert resumed.seen == whole.seen[save.seen :]


def test_limited_epochs_have_orders_of_their_own_and_resume(tmp_path: Path) -> None:
    save = SaveAt(tmp_path / "stop.ckpt", "on_train_batch_end", 3)
    whole = fit(tmp_path, tensor_loader(), callbacks=[save], limit_train_batches=3)
    loader = tensor_loader()
    expected = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        expected += [targets.tolist() for _, targets in loader][:3]
    assert whole.seen == expected
    resumed = fit(tmp_path, tensor_loader(), ckpt_path=save.path, limit_train_batches=3)
    assert resumed.seen == expected[3:]


def test_second_fit_of_one_loader_starts_over(tmp_path: Path) -> None:
    loader = tensor_loader()
    assert fit(tmp_path, loader).seen == fit(tmp_path, loader).seen


class DigitsRecorder(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return super().training_step((batch[0].flatten(1), batch[1]), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.layer(batch[0].flatten(1)).mean())

    test_step = validation_step


def quiet_trainer(folder: Path, **arguments: Any) -> Trainer:
    return Trainer(default_root_dir=folder, **{**QUIET, "max_epochs": 2, **arguments})


@pytest.mark.parametrize(
    ("hook", "call"),
    [("on_train_batch_end", 5), ("on_train_batch_end", 14), ("on_train_epoch_end", 1)],
)
def test_datamodule_resumes_with_the_seed_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str, call: int
) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    whole, resumed, other = DigitsRecorder(), DigitsRecorder(), DigitsRecorder()
    save = SaveAt(tmp_path / "stop.ckpt", hook, call)
    quiet_trainer(tmp_path, callbacks=[save]).fit(whole, datamodule=Digits(batch_size=128))
    monkeypatch.delenv("PL_GLOBAL_SEED")
    quiet_trainer(tmp_path).fit(resumed, datamodule=Digits(batch_size=128), ckpt_path=save.path)
    assert len(whole.seen) == 22
    assert resumed.seen == whole.seen[save.seen :]
    quiet_trainer(tmp_path).fit(other, datamodule=Digits(batch_size=128))
    assert other.seen != whole.seen


def test_datamodule_serves_every_stage_with_and_without_validation(tmp_path: Path) -> None:
    for validation in (0.1, 0):
        trainer = quiet_trainer(tmp_path, max_epochs=1)
        trainer.fit(DigitsRecorder(), datamodule=Digits(validation=validation, batch_size=256))
        assert ("val_loss" in trainer.callback_metrics) == (validation > 0)
        trainer.test(DigitsRecorder(), datamodule=Digits(), verbose=False)


def test_overfit_batches_gives_the_same_batches_in_every_epoch(tmp_path: Path) -> None:
    module = DigitsRecorder()
    trainer = quiet_trainer(tmp_path, overfit_batches=2, max_epochs=3)
    trainer.fit(module, datamodule=Digits(validation=0))
    assert module.seen[:2] == module.seen[2:4] == module.seen[4:6]


class AsksForItsLength(Recorder):
    """Has Lightning set up the loaders before it restores them, as many modules do."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


@pytest.mark.parametrize("call", [5, 41, 45])
def test_a_module_that_asks_for_its_length_resumes_in_mid_epoch(tmp_path: Path, call: int) -> None:
    path = tmp_path / "c.ckpt"
    seen = []
    for callbacks, resume in (([SaveAt(path, "on_train_batch_end", call)], None), ([], path)):
        module = AsksForItsLength()
        module.layer = torch.nn.Linear(8, 1)
        trainer = quiet_trainer(tmp_path, callbacks=list(callbacks))
        trainer.fit(module, datamodule=Digits(seed=5), ckpt_path=resume)
        seen.append(module.seen)
    assert len(seen[1]) == 2 * 41 - call
    assert seen[1] == seen[0][call:]


def test_a_checkpoint_of_another_split_is_refused(tmp_path: Path) -> None:
    save = SaveAt(tmp_path / "c.ckpt", "on_train_epoch_end", 1)
    quiet_trainer(tmp_path, callbacks=[save]).fit(DigitsRecorder(), datamodule=Digits(split_seed=1))
    message = r"Digits: .* split_seed=1, but here split_seed=0: what is held out here was trained"
    for command in ("fit", "test"):
        run = getattr(quiet_trainer(tmp_path), command)
        with pytest.raises(CheckpointError, match=message):
            run(DigitsRecorder(), datamodule=Digits(), ckpt_path=save.path)


def test_a_place_from_another_command_is_none_of_the_next_fits(tmp_path: Path) -> None:
    save = SaveAt(tmp_path / "c.ckpt", "on_train_batch_end", 5)
    whole, again = DigitsRecorder(), DigitsRecorder()
    quiet_trainer(tmp_path, callbacks=[save]).fit(whole, datamodule=Digits())
    data = Digits()
    quiet_trainer(tmp_path).test(whole, datamodule=data, ckpt_path=save.path, verbose=False)
    quiet_trainer(tmp_path).fit(again, datamodule=data)
    assert again.seen == whole.seen
