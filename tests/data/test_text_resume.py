"""Vocabulary, classes and order of texts through checkpoints, with the real Trainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lightning_dlopt.core.errors import CheckpointError, DataError
from lightning_dlopt.data import TextClassification
from lightning_dlopt.modules import TextClassifier
from lightning_dlopt.structure import RecurrentNet
from tests.quiet import QUIET

ROWS = [f"w{number % 7} w{number % 11} w{number % 5},{'ab'[number % 2]}" for number in range(60)]


def write(folder: Path, rows: list[str] = ROWS, name: str = "train.csv") -> Path:
    (folder / name).write_text("\n".join(["text,label", *rows]) + "\n")
    return folder


class Keeper(Callback):
    """Keep the tokens of training, and save after the fifth batch."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.seen: list[list[list[int]]] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.seen.append(args[2][0].tolist())
        if self.path is not None and len(self.seen) == 5:
            trainer.save_checkpoint(self.path)


def fit(data: TextClassification, keeper: Keeper, ckpt_path: Path | None = None) -> TextClassifier:
    torch.manual_seed(0)
    module = TextClassifier(RecurrentNet(30, 2, width=4), num_classes=2)
    trainer = Trainer(**QUIET, max_epochs=2, callbacks=[keeper], num_sanity_val_steps=0)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(write(tmp_path), ["w3 w5 w1,b", "w2 new,a"], "test.csv")


def test_resume_in_mid_epoch_is_exact(folder: Path) -> None:
    whole = Keeper(folder / "five.ckpt")
    expected = fit(TextClassification(folder, batch_size=8), whole)
    rest = Keeper()
    resumed = fit(TextClassification(folder, batch_size=8), rest, folder / "five.ckpt")
    assert rest.seen == whole.seen[5:]
    for ours, theirs in zip(resumed.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    mixed = TextClassification(folder, batch_size=8, group_by_length=False)
    with pytest.raises(CheckpointError, match="group_by_length=1, but this loader has group_by"):
        fit(mixed, Keeper(), folder / "five.ckpt")


def test_a_resumed_fit_keeps_vocabulary_and_classes_when_the_file_changes(folder: Path) -> None:
    whole = Keeper(folder / "five.ckpt")
    first = TextClassification(folder, batch_size=8)
    fit(first, whole)
    # as many texts of the same words, but of other frequencies; the first class's rows are gone
    write(folder, [row[:-1] + "b" for row in reversed(ROWS)])
    other = TextClassification(folder, batch_size=8)
    with pytest.warns(UserWarning, match=r"all texts of the training set have the label 'b'"):
        other.setup()
    assert other.classes == ("b",)
    fit(other, Keeper(), folder / "five.ckpt")
    assert other.vocabulary == first.vocabulary
    assert other.classes == ("a", "b")
    write(folder, [*ROWS[:-1], "w1,c"])
    with pytest.raises(DataError, match=r"train\.csv: line 61: the checkpoint has no class 'c'$"):
        fit(TextClassification(folder, batch_size=8, validation=0), Keeper(), folder / "five.ckpt")


class AsksForItsLength(TextClassifier):
    """Has Lightning make the training loader before it restores the vocabulary."""

    def setup(self, stage: str) -> None:
        assert self.trainer.estimated_stepping_batches > 0


def test_a_loader_made_before_the_restore_gets_the_saved_vocabulary(folder: Path) -> None:
    first = TextClassification(folder, batch_size=8, seed=3)
    fit(first, Keeper(folder / "five.ckpt"))
    write(folder, [f"w6 w{row[1:]}" for row in reversed(ROWS)])
    seen = []
    for kind in (TextClassifier, AsksForItsLength):
        keeper = Keeper()
        data = TextClassification(folder, batch_size=8, max_length=3)
        data.setup()
        assert data.vocabulary != first.vocabulary
        module = kind(RecurrentNet(30, 2, width=4), num_classes=2)
        trainer = Trainer(**QUIET, max_epochs=2, callbacks=[keeper], num_sanity_val_steps=0)
        trainer.fit(module, datamodule=data, ckpt_path=folder / "five.ckpt", weights_only=True)
        seen.append(keeper.seen)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 9
    assert seen[0][0][0][0] == first.vocabulary.index("w6")


def test_resume_in_mid_epoch_with_texts_of_other_lengths_is_refused(folder: Path) -> None:
    fit(TextClassification(folder, batch_size=8), Keeper(folder / "five.ckpt"))
    write(folder, [f"more {row}" for row in ROWS[:9]] + ROWS[9:])
    with pytest.raises(CheckpointError, match=r"inside an epoch with checksum_of_lengths=\d+, "):
        fit(TextClassification(folder, batch_size=8), Keeper(), folder / "five.ckpt")
    ungrouped = Keeper(folder / "ungrouped.ckpt")
    fit(TextClassification(folder, batch_size=8, group_by_length=False), ungrouped)
    shorter = TextClassification(folder, batch_size=8, group_by_length=False, max_length=2)
    fit(shorter, Keeper(), folder / "ungrouped.ckpt")  # lengths play no part in that order


@pytest.mark.parametrize("command", ["test", "predict", "validate"])
def test_evaluation_from_a_checkpoint_uses_the_saved_vocabulary(folder: Path, command: str) -> None:
    data = TextClassification(folder, batch_size=8)
    module = fit(data, Keeper(folder / "five.ckpt"))
    expected = next(iter(data.test_dataloader()))[0].tolist()
    # w3 w5 w1, and w2 with a word that training never saw
    assert expected[1] == [data.vocabulary.index("w2"), 1, 0]
    write(folder, ["new new new,a", "w1 w1,b", "w5,a", "w3,a"])
    write(folder, ["w3 w5 w1,b", "w2 new,a"], "val.csv")

    class Look(Callback):
        def on_test_batch_start(self, *args: Any) -> None:
            self.tokens = args[2][0].tolist()

        on_predict_batch_start = on_validation_batch_start = on_test_batch_start

    look = Look()
    changed = TextClassification(folder, batch_size=8)
    run = getattr(Trainer(**QUIET, callbacks=[look]), command)
    run(module, datamodule=changed, ckpt_path=folder / "five.ckpt", weights_only=True)
    assert look.tokens == expected
    assert (changed.vocabulary, changed.classes) == (data.vocabulary, ("a", "b"))
