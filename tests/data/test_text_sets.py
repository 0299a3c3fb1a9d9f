"""A folder with a file for each set of texts."""

import warnings
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from lightning_dlopt.core.errors import DataError
from lightning_dlopt.data import TextClassification
from lightning_dlopt.data.text_sets import set_files
from lightning_dlopt.modules import TextClassifier
from lightning_dlopt.structure import RecurrentNet
from tests.data.test_text_classification import decoded, write
from tests.quiet import QUIET


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "train.jsonl", [("a", "x"), ("b", "y")])
    (tmp_path / "README.md").write_text("what this is")
    return tmp_path


@pytest.mark.parametrize("name", ["val.csv", "Valid.csv", "validation.csv", "dev.csv"])
def test_each_set_is_its_file(folder: Path, name: str) -> None:
    (folder / name).write_text("label,text\nx,a a\n")
    write(folder / "test.jsonl", [("b b", "y")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = TextClassification(folder)
        assert len(decoded(data, data.train_dataloader())) == 2
        assert decoded(data, data.val_dataloader()) == [("a a", "x")]
        assert decoded(data, data.predict_dataloader()) == [("b b", "y")]


def test_a_label_that_training_lacks(folder: Path) -> None:
    write(folder / "test.jsonl", [("b", "y"), ("b", "z")])
    with pytest.raises(DataError, match=r"test\.jsonl: line 2: the training set has no class 'z'$"):
        TextClassification(folder, validation=0).test_dataloader()


def test_two_files_of_one_set(folder: Path) -> None:
    (folder / "train.csv").write_text("label,text\nx,a\n")
    with pytest.raises(DataError, match=r"which is the train set of train\.csv, train\.jsonl"):
        set_files(folder)
    (folder / "train.csv").rename(folder / "dev.csv")
    (folder / "val.csv").write_text("label,text\nx,a\n")
    with pytest.raises(DataError, match=r"which is the validation set of dev\.csv, val\.csv"):
        set_files(folder)


def test_files_that_look_like_sets_are_told(folder: Path) -> None:
    for name in ("test.txt", "extra.csv.gz", "notes.txt", ".hidden.csv"):
        (folder / name).write_text("")
    with pytest.warns(UserWarning, match=r": extra\.csv\.gz, test\.txt: not used; sets are files"):
        assert set_files(folder) == {"train": folder / "train.jsonl"}
    (folder / "train.jsonl").rename(folder / "training.jsonl")
    with pytest.raises(DataError, match=r"no train file .*; there are .*training\.jsonl"):
        set_files(folder)


def test_a_test_file_is_read_only_when_it_is_asked_for(folder: Path) -> None:
    write(folder / "train.jsonl", [(f"a{n}", "xy"[n % 2]) for n in range(20)])
    (folder / "test.csv").write_text("text\na\n")
    module = TextClassifier(RecurrentNet(30, 2, width=4), num_classes=2)
    Trainer(**QUIET, max_epochs=1).fit(module, datamodule=TextClassification(folder))
    for command in ("test", "predict"):
        run = getattr(Trainer(**QUIET), command)
        with pytest.raises(DataError, match=r"test\.csv: target='label': there is no such column"):
            run(module, datamodule=TextClassification(folder))
