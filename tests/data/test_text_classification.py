"""The DataModule of texts: vocabulary, batches, buckets, bad rows, errors."""

import json
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError, DataError
from lightning_dlopt.data import TextClassification
from lightning_dlopt.data.order import epoch_batches

Rows = list[tuple[str, Any]]


def write(path: Path, rows: Rows) -> Path:
    lines = (json.dumps({"text": text, "label": label}) for text, label in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def random_rows(count: int = 300, longest: int = 40) -> Rows:
    generator = torch.Generator().manual_seed(0)
    rows: Rows = []
    for _ in range(count):
        length = int(torch.randint(1, longest, (), generator=generator))
        words = torch.randint(25, (length,), generator=generator).tolist()
        rows.append((" ".join(f"w{word}" for word in words), ("cat", "dog", "ant")[length % 3]))
    return rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "texts.jsonl", random_rows())


def decoded(data: TextClassification, loader: Any) -> Rows:
    """Return the texts and labels of a loader's batches, read back from the numbers."""
    return [
        (" ".join(data.vocabulary[index] for index in text if index), data.classes[target])
        for tokens, targets in loader
        for text, target in zip(tokens.tolist(), targets.tolist(), strict=True)
    ]


def test_batches_hold_the_texts_and_labels(path: Path) -> None:
    data = TextClassification(path, batch_size=32, test=0.2)
    parts = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    read = [decoded(data, part) for part in parts]
    assert [len(part) for part in read] == [216, 24, 60]
    assert sorted(chain(*read)) == sorted(random_rows())
    order = {row: place for place, row in enumerate(random_rows())}
    for evaluated in read[1:]:  # in the file's order
        assert evaluated == sorted(evaluated, key=order.__getitem__)
    assert data.classes == ("ant", "cat", "dog")
    for tokens, targets in parts[0]:
        assert (tokens.dtype, targets.dtype) == (torch.int64, torch.int64)
        padding = tokens == data.pad_id
        assert not padding.all(0).any()  # no longer than the longest text
        assert not (padding[:, :-1] & ~padding[:, 1:]).any()  # on the right


def test_the_vocabulary_is_the_training_splits_by_frequency(tmp_path: Path) -> None:
    rows = [("b a c", "x"), ("a b", "y"), ("B rare", "x")] * 2 + [(f"held{i}", "x") for i in "12"]
    data = TextClassification(write(tmp_path / "t.jsonl", rows), validation=2)
    data.setup()
    train = decoded(data, data.train_dataloader())
    counts = Counter(" ".join(text for text, _ in train).split())
    expected = sorted(counts, key=lambda word: (-counts[word], word))
    assert data.vocabulary == ("<pad>", "<unknown>", *expected)
    held_out = next(iter(data.val_dataloader()))[0]
    assert len(counts) < 6 or (held_out == data.unknown_id).any()
    smaller = TextClassification(data.path, validation=0, vocab_size=4)
    smaller.setup()
    assert smaller.vocabulary == ("<pad>", "<unknown>", "b", "a")
    often = TextClassification(data.path, validation=0, min_count=3)
    often.setup()
    assert often.vocabulary == ("<pad>", "<unknown>", "b", "a")


def test_words_called_like_the_special_ones_are_unknown(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [("<pad> a <unknown>", "x"), ("a", "y")])
    data = TextClassification(path, validation=0, tokenizer=str.split)  # type: ignore[arg-type]
    batch = next(iter(data.train_dataloader()))[0]
    assert sorted(batch.tolist()) == [[1, 2, 1], [2, 0, 0]]


def test_min_count_above_every_count_and_a_single_class(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [("a b", "x"), ("b c", "x")])
    with pytest.raises(ArgumentError, match=r"min_count=3: no word .* most frequent one 2 times"):
        TextClassification(path, validation=0, min_count=3).setup()
    data = TextClassification(path, validation=0, min_count=2)
    with pytest.warns(UserWarning, match=r"t\.jsonl: all texts .* have the label 'x'"):
        data.setup()


def test_a_class_that_the_random_split_took_away(tmp_path: Path) -> None:
    rows = [(f"w{n}", ("x", "y")[n % 2]) for n in range(40)]
    path = write(tmp_path / "t.jsonl", [*rows, *((f"z{n}", f"rare{n}") for n in range(10))])
    data = TextClassification(path, validation=0.5)
    with pytest.raises(DataError, match=r"no class 'rare\d'; the random split left .*split_seed"):
        data.val_dataloader()


def test_max_length_and_own_tokenizer(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [("abcde", 10), ("b", 9)])
    data = TextClassification(path, validation=0, tokenizer=list, max_length=3)
    assert decoded(data, data.train_dataloader()) in (
        [("a b c", "10"), ("b", "9")],
        [("b", "9"), ("a b c", "10")],
    )
    assert data.classes == ("9", "10")
    wrong = TextClassification(path, validation=0, tokenizer=len)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="list of strings"):
        wrong.setup()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_buckets_are_the_same_global_batches_on_any_number_of_ranks(world_size: int) -> None:
    lengths = torch.randint(1, 40, (500,), generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"shuffle": True, "seed": 3, "epoch": 2, "lengths": lengths}
    whole = epoch_batches(500, 12, **options)
    assert sorted(torch.cat(whole).tolist()) == list(range(500))
    parts = [
        epoch_batches(500, 12 // world_size, rank=rank, world_size=world_size, **options)
        for rank in range(world_size)
    ]
    full = 500 // 12
    for index in range(full):
        assert torch.equal(torch.cat([part[index] for part in parts]), whole[index])
    again = epoch_batches(500, 12, **options)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    other = epoch_batches(500, 12, **{**options, "epoch": 3})
    assert {tuple(sorted(b.tolist())) for b in whole}.isdisjoint(
        tuple(sorted(b.tolist())) for b in other
    )


def test_buckets_come_in_random_order_and_leave_little_padding(path: Path) -> None:
    def share_of_padding(**options: Any) -> tuple[float, list[int]]:
        data = TextClassification(path, validation=0, batch_size=10, **options)
        batches = [tokens for tokens, _ in data.train_dataloader()]
        padding = sum(int((tokens == 0).sum()) for tokens in batches)
        return padding / sum(map(torch.Tensor.numel, batches)), [b.shape[1] for b in batches]

    bucketed, widths = share_of_padding()
    mixed, _ = share_of_padding(group_by_length=False)
    assert bucketed < 0.1 < 0.4 < mixed
    assert widths not in (sorted(widths), sorted(widths, reverse=True))
    assert len(set(widths)) > 10


def test_no_global_generator_is_touched(
    path: Path, unchanged_global_randomness: Callable[[], AbstractContextManager[None]]
) -> None:
    with unchanged_global_randomness():
        data = TextClassification(path, test=0.1)
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
            list(loader)


def test_bad_rows_are_left_out_and_told_in_one_warning(tmp_path: Path) -> None:
    rows = random_rows(100)
    for line in (3, 5, 8, 20, 21, 50, 77):
        rows[line - 1] = ("", "cat")
    path = write(tmp_path / "t.jsonl", rows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = TextClassification(path, validation=0)
        data.setup()
    assert len(data.train_set or ()) == 93
    (warning,) = caught
    assert str(warning.message) == (
        f"{path}: 7 of 100 rows are bad: line 3 (empty text), line 5 (empty text), line 8 (empty "
        "text), line 20 (empty text), line 21 (empty text) and 2 more; they are left out"
    )
    with pytest.raises(DataError, match=r"7 of 100 rows .*at most max_bad=0\.05"):
        TextClassification(path, max_bad=0.05).setup()
    with pytest.raises(DataError, match=r"1 of 1 rows are bad: line 1 \(empty text\)"):
        TextClassification(write(path, [("", "a")]), max_bad=1.0).setup()


@pytest.mark.parametrize("content", ["", "text,label\n"])
def test_empty_files(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError, match=r"t\.csv: there are no samples in it"):
        TextClassification(tmp_path / "t.csv").setup()


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.csv: there is no such file"):
        TextClassification(tmp_path / "no.csv").setup()
    with pytest.raises(DataError, match=r"has no train file"):
        TextClassification(tmp_path).setup()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"text": 0}, "text=0 and target='label' must both be names"),
        ({"text": "label"}, "text and target are both 'label'"),
        ({"quoted": 0}, "quoted=0"),
        ({"text": -1, "target": 0}, r"text=-1"),
        ({"target": ""}, "target must not be empty"),
        ({"test": 1.0}, r"test=1\.0"),
        ({"vocab_size": 2}, r"vocab_size=2 is not in \[3, inf\)"),
        ({"min_count": 0}, "min_count=0"),
        ({"max_length": 0}, "max_length=0"),
        ({"max_bad": 2}, "max_bad=2"),
        ({"tokenizer": "words"}, "tokenizer='words'"),
        ({"group_by_length": 1}, "group_by_length=1"),
        ({"max_lenght": 3}, "max_lenght="),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises((ArgumentError, ArgumentTypeError), match=f"TextClassification: .*{named}"):
        TextClassification("t.csv", **arguments)
