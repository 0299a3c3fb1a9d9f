"""Reading texts: every format, line numbers, and rows and files that can't be used."""

import csv
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lightning_dlopt.core.errors import DataError
from lightning_dlopt.data import TextClassification
from lightning_dlopt.data.text_files import Row, read_rows

TEXTS = ["plain", 'with "quotes", commas', "two\nlines", "tab\there", "Käse 🧀"]
LABELS = ["a", "b", "a", "c", "b"]


def write(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


def rows(path: Path, text: Any = "text", target: Any = "label", **more: Any) -> list[Row]:
    return list(read_rows(path, text, target, **more))


def bad(path: Path, **more: Any) -> list[tuple[int, str]]:
    return [(row.line, row.bad) for row in rows(path, **more) if row.bad]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        with (tmp_path / f"t{suffix}").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows([("label", "number", "text")])
            writer.writerows((label, 1, text) for text, label in zip(TEXTS, LABELS, strict=True))
    lines = (json.dumps({"text": t, "label": n}) + "\n" for t, n in zip(TEXTS, LABELS, strict=True))
    write(tmp_path / "t.jsonl", "".join(lines))
    table = pyarrow.table({"label": LABELS, "other": [1.0] * 5, "text": TEXTS})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    expected = list(zip(TEXTS, LABELS, strict=True))
    numbers = {".csv": [2, 3, 4, 6, 7], ".tsv": [2, 3, 4, 6, 7]}
    for suffix in (".csv", ".tsv", ".jsonl", ".parquet"):
        read = rows(tmp_path / f"t{suffix}")
        assert [(row.text, row.label) for row in read] == expected
        assert [row.line for row in read] == numbers.get(suffix, [1, 2, 3, 4, 5])
        if suffix != ".parquet":
            packed = tmp_path / f"t{suffix}.gz"
            packed.write_bytes(gzip.compress((tmp_path / f"t{suffix}").read_bytes()))
            assert rows(packed) == read


def test_a_file_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "1,x,first\n2,y,second\n")
    assert [row[:3] for row in rows(path, 2, 1)] == [(1, "first", "x"), (2, "second", "y")]
    with pytest.raises(DataError, match=r"target=3: its columns are 0 to 2"):
        rows(path, 2, 3)


def test_encodings_and_byte_order_marks(tmp_path: Path) -> None:
    content = "text,label\nKäse,a\n"
    assert rows(write(tmp_path / "a.csv", "\ufeff" + content))[0].text == "Käse"
    assert rows(write(tmp_path / "b.csv", content, "latin-1"), encoding="latin-1")[0].text == "Käse"
    assert rows(write(tmp_path / "c.csv", content, "utf-16"), encoding="utf-16")[0].text == "Käse"
    assert rows(tmp_path / "a.csv", encoding="U8")[0].text == "Käse"
    for name in ("b.csv", "c.csv"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes().replace(b"l", b"\xff"))
        with pytest.raises(DataError, match=r"no such column; .*; is the encoding right\?"):
            rows(tmp_path / name)
    with pytest.raises(DataError, match=r"a.csv: can't be read: LookupError.*klingon"):
        rows(tmp_path / "a.csv", encoding="klingon")
    with pytest.raises(DataError, match=r"a.csv: can't be read: .*is encoding='utf-32' right\?"):
        rows(tmp_path / "a.csv", encoding="utf-32")
    with pytest.raises(DataError, match=r"a.csv: encoding='a\\x00b' is none"):
        rows(tmp_path / "a.csv", encoding="a\0b")


def test_bad_rows_of_csv_files_are_told_by_line(tmp_path: Path) -> None:
    content = 'text,label\n"a\nb",x\nonly one\n\n"c\n\nd",x,more\n  ,x\ne,\nf,x\n'
    path = write(tmp_path / "t.csv", content)
    path.write_bytes(path.read_bytes() + b"\xff\xfe,x\ng,x\n")
    assert bad(path) == [
        (4, "1 fields, not 2"),
        (6, "3 fields, not 2"),
        (9, "empty text"),
        (10, "no label"),
        (12, "undecodable bytes"),
    ]
    assert [row.text for row in rows(path) if not row.bad] == ["a\nb", "f", "g"]


def test_bad_rows_of_jsonl_files_are_told_by_line(tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "label": 1}',
        "",
        '{"text": "b"',
        "[1]",
        '{"text": "c", "other": 1}',
        '{"text": 5, "label": 1}',
        '{"text": "d", "label": 1.5}',
        '{"text": "e", "label": null}',
        '{"text": "f\\ud800", "label": 1}',
    ]
    path = write(tmp_path / "t.jsonl", "\n".join(lines))
    assert rows(path)[0] == Row(1, "a", "1")
    assert bad(path) == [
        (3, "invalid JSON"),
        (4, "no JSON object"),
        (5, "no 'label' among 'text', 'other'"),
        (6, "text is 5"),
        (7, "label is 1.5, neither text nor integer"),
        (8, "no label"),
        (9, "undecodable bytes"),
    ]


def test_empty_values_of_parquet_files_are_told(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["a", None, "c"], "label": [1, 2, None]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert bad(tmp_path / "t.parquet") == [(2, "empty text"), (3, "no label")]


def test_long_fields_and_csvs_global_limit(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    path = write(tmp_path / "t.csv", f"text,label\n{'x' * (limit + 1)},a\n")
    assert len(rows(path)[0].text) == limit + 1
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"words,label\na,b\n", r"text='text': there is no such column; .*'words'"),
        ("t.tsv", b"text\ty\na\tb\n", r"target='label': .*'text', 'y'"),
        ("t.csv", b'text,"label\na,b\n', r"line 1: stray quote in the first row: .*quoted=False"),
        ("t.csv", b"text,label,label\na,b,c\n", r"target='label': 2 columns are called so"),
        ("t.csv.gz", b"text,label\n", r"can't be read: BadGzipFile"),
        ("t.csv.gz", gzip.compress(b"text,label\na,b\n", mtime=0)[:-9], r"can't be read: EOFError"),
        ("t.parquet", b"text,label\n", r"no readable Parquet file"),
        ("t.txt", b"text,label\n", r"must end in one of \.csv, \.tsv, \.jsonl, \.parquet"),
    ],
)
def test_unusable_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: .*{message}|{name}: {message}") as caught:
        rows(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: there is no such file"):
        rows(tmp_path / "t.csv")
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(DataError, match=r"t\.csv: is a folder"):
        rows(tmp_path / "t.csv")


def test_twice_named_columns_and_undecodable_strings_of_parquet_files(tmp_path: Path) -> None:
    column = pyarrow.array(["a", "b", "c"])
    path = tmp_path / "t.parquet"
    table = pyarrow.Table.from_arrays([column] * 3, names=["text", "text", "label"])
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(DataError, match=r"t\.parquet: text='text': 2 columns are called so"):
        rows(path)
    buffers = [None, pyarrow.py_buffer(bytes([0] * 4 + [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]))]
    wrong = pyarrow.Array.from_buffers(
        pyarrow.string(), 3, [*buffers, pyarrow.py_buffer(b"a\xffc")]
    )
    pyarrow.parquet.write_table(pyarrow.table({"text": wrong, "label": column}), path)
    assert [row.text for row in rows(path) if not row.bad] == ["a", "c"]
    assert bad(path) == [(2, "undecodable bytes")]
    with pytest.warns(UserWarning, match=r"line 2 \(undecodable bytes\); they are left out$"):
        TextClassification(path, max_bad=0.5, validation=0).setup()


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'lightning-dlopt\[parquet\]'"):
        rows(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"columns of \.parquet files have names"):
        rows(tmp_path / "t.parquet", 0, 1)
