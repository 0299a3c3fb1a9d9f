"""A quote that isn't closed costs its own row only, and is told."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from lightning_dlopt.core.errors import DataError
from lightning_dlopt.data import TextClassification
from lightning_dlopt.data.text_files import Row, read_rows


def rows(path: Path, content: str, text: Any = "text", target: Any = "label", **more: Any) -> Any:
    path.write_text(content)
    return list(read_rows(path, text, target, **more))


def numbered(count: int, quotes: dict[int, str], text_first: bool = False) -> str:
    """Return rows of TSV; ``quotes`` gives some of them other texts."""
    pairs = ((quotes.get(n, f"sentence {n}"), str(n % 2)) for n in range(count))
    ordered = ((text, label) if text_first else (label, text) for text, label in pairs)
    header = "text\tlabel\n" if text_first else "label\ttext\n"
    return header + "".join("\t".join(row) + "\n" for row in ordered)


@pytest.mark.parametrize("text_first", [False, True])
@pytest.mark.parametrize("second", ['"another', 'another"', '12" another'])
def test_rows_between_two_stray_quotes_are_kept(
    tmp_path: Path, second: str, text_first: bool
) -> None:
    content = numbered(300, {50: '"one', 200: second}, text_first)
    read = rows(tmp_path / "t.tsv", content)
    assert len(read) == 300
    expected = [52] if second != '"another' else [52, 202]
    assert [row.line for row in read if row.bad] == expected
    assert {row.bad for row in read} == {"", "stray quote"}
    for number, row in enumerate(read):
        if not row.bad:
            text = second if number == 200 else f"sentence {number}"
            assert row == Row(number + 2, text, str(number % 2))


def test_many_stray_quotes_are_told_and_counted(tmp_path: Path) -> None:
    quotes = {n: f'"sentence {n}' for n in range(0, 5000, 90)}
    path = tmp_path / "t.tsv"
    path.write_text(numbered(5000, quotes))
    told = r"56 of 5000 rows are bad: line 2 \(stray quote\), line 92 .* 51 more; .*quoted=False"
    data = TextClassification(path, validation=0)
    with pytest.warns(UserWarning, match=told):
        data.setup()
    assert len(data.train_set or ()) == 5000 - 56
    with pytest.raises(DataError, match=r"at most max_bad=0\.01 of them may be; .*quoted=False"):
        TextClassification(path, validation=0, max_bad=0.01).setup()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = TextClassification(path, validation=0, quoted=False)
        plain.setup()
    assert len(plain.train_set or ()) == 5000
    assert '"' in plain.vocabulary


def test_a_truncated_last_line(tmp_path: Path) -> None:
    read = rows(tmp_path / "t.csv", 'label,text\n1,a\n1,"trunca')
    assert read == [Row(2, "a", "1"), Row(3, "", "", "stray quote")]
    read = rows(tmp_path / "t.csv", 'label,text\n1,a\n1,"trunca\n0,b\n\n0,c\n')
    assert [row.line for row in read] == [2, 3, 4, 6]
    assert [row.bad for row in read] == ["", "stray quote", "", ""]


@pytest.mark.parametrize(
    "text",
    [
        '"Hello,\ndear, you"',
        '"two\n\nlines, ""quoted"", and\r\nmore"',
        '"1,of\nmany"',
        '"ends with a quote\n"""',
    ],
)
@pytest.mark.parametrize("text_first", [False, True])
def test_quoted_line_breaks_stay(tmp_path: Path, text: str, text_first: bool) -> None:
    pairs = [("a", "1"), (text, "0"), ("b", "1"), (text, "1")]
    ordered = [pair if text_first else pair[::-1] for pair in pairs]
    path = tmp_path / "t.csv"
    content = "".join(",".join(row) + "\n" for row in ordered)
    path.write_bytes(content.encode())
    read = list(read_rows(path, 1 - text_first, int(text_first)))
    inside = text[1:-1].replace('""', '"')
    assert [(row.text, row.label, row.bad) for row in read] == [
        (inside if pair[0] == text else pair[0], pair[1], "") for pair in pairs
    ]


def test_without_quoting_a_line_is_a_row(tmp_path: Path) -> None:
    content = 'label\ttext\n1\t"a" b\n0\t"c\n1\td"\n'
    read = rows(tmp_path / "t.tsv", content, quoted=False)
    assert read == [Row(2, '"a" b', "1"), Row(3, '"c', "0"), Row(4, 'd"', "1")]
