"""Rows of a text and its label, read from CSV, TSV, JSONL and Parquet files."""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from lightning_dlopt.core.errors import DataError, one_line
from lightning_dlopt.data.delimited import STRAY_QUOTE, Records

#: What is wrong with a row that doesn't belong to the encoding.
UNDECODABLE = "undecodable bytes"

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


class Row(NamedTuple):
    """A text and its label, and the line where they begin; ``bad`` says why it is no sample."""

    line: int
    text: str
    label: str
    bad: str = ""


def file_format(path: Path) -> str:
    """Return the suffix that tells the format, without ``.gz``.

    Example:
        >>> file_format(Path("reviews.TSV.gz"))
        '.tsv'

    Raises:
        DataError: if it is none of ``FORMATS``.
    """
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    suffix = name.suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise DataError(f"{path}: the name must end in one of {known} (also with .gz, but parquet)")
    return suffix


def read_rows(
    path: Path,
    text: int | str,
    target: int | str,
    encoding: str = "utf-8",
    quoted: bool = True,
) -> Iterator[Row]:
    """Yield the rows of a file, the bad ones too.

    Args:
        path: the file; its suffix tells the format, and ``.gz`` after it that it is compressed.
        text: the column of the texts: a name, or of a file without a header a number from 0.
        target: the column of the labels, likewise.
        encoding: of all formats but Parquet.
        quoted: whether quotes can enclose a field of a CSV or TSV file.

    Raises:
        DataError: if the file or a column is missing, or the file as a whole can't be read.
    """
    suffix = file_format(path)
    if "\0" in encoding:
        raise DataError(f"{path}: encoding={encoding!r} is none")
    if path.is_dir() or not path.exists():
        raise DataError(f"{path}: " + ("is a folder" if path.is_dir() else "there is no such file"))
    if suffix in (".jsonl", ".parquet") and not isinstance(text, str):
        raise DataError(f"{path}: columns of {suffix} files have names: text={text!r} is none")
    try:
        if suffix == ".parquet":
            yield from _parquet_rows(path, text, target)
            return
        # a byte that doesn't belong to the encoding spoils its row only; a byte-order mark, which
        # spreadsheets write, isn't part of the first column's name
        plain = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
        opened: IO[str]
        open_file = gzip.open if path.suffix.lower() == ".gz" else open
        with open_file(path, "rt", encoding=plain, errors="surrogateescape", newline="") as opened:
            if suffix == ".jsonl":
                yield from _jsonl_rows(opened, text, target)
            else:
                delimiter = "," if suffix == ".csv" else "\t"
                yield from _delimited_rows(path, opened, delimiter, text, target, quoted)
    except DataError:
        raise
    except (OSError, EOFError, zlib.error, UnicodeError, LookupError) as error:
        hint = f"; is {encoding=} right?" if isinstance(error, UnicodeError | LookupError) else ""
        raise DataError(
            f"{path}: can't be read: {type(error).__name__}: {one_line(error)}{hint}"
        ) from error


def _delimited_rows(
    path: Path, file: Iterable[str], delimiter: str, text: Any, target: Any, quoted: bool
) -> Iterator[Row]:
    width = 0
    place: tuple[int, ...] = ()
    labels: set[str] = set()
    records = Records(file, delimiter, quoted)
    for record in records:
        stray = records.is_stray(record)
        if not place:
            if stray:
                raise DataError(
                    f"{path}: line {record.line}: {STRAY_QUOTE} in the first row: close it, or "
                    "give quoted=False if quotes enclose nothing in this file"
                )
            place = _places(path, record.fields, text, target)
            width = len(record.fields)
            if isinstance(text, str):
                continue
        row = Row(record.line, "", "", f"{len(record.fields)} fields, not {width}")
        if len(record.fields) == width:
            row = _row(record.line, *(record.fields[index] for index in place))
            if row.label:
                labels.add(row.label)
        if stray or (len(record.lines) > 1 and records.swallows(record, place, labels)):
            row = Row(record.line, "", "", STRAY_QUOTE)
            records.reread(record)
        yield row


def _places(path: Path, header: list[str], text: int | str, target: int | str) -> tuple[int, ...]:
    """Return the positions of both columns."""
    places = []
    for name, column in (("text", text), ("target", target)):
        if isinstance(column, str):
            _check_there_once(path, name, column, header)
            places.append(header.index(column))
        elif column >= len(header):
            raise DataError(f"{path}: {name}={column}: its columns are 0 to {len(header) - 1}")
        else:
            places.append(column)
    return tuple(places)


def _check_there_once(path: Path, name: str, column: str, columns: list[str]) -> None:
    count = columns.count(column)
    if count > 1:
        raise DataError(f"{path}: {name}={column!r}: {count} columns are called so: rename one")
    if not count:
        there = ", ".join(repr(one_line(column)[:50]) for column in columns)
        # bytes that don't belong to the encoding, or zeros between letters as UTF-16 has them
        wrong = any("\udc80" <= letter <= "\udcff" or letter == "\0" for letter in "".join(columns))
        hint = "; is the encoding right?" if wrong else ""
        raise DataError(
            f"{path}: {name}={column!r}: there is no such column; there are {there}{hint}"
        )


def _jsonl_rows(file: Iterable[str], text: Any, target: Any) -> Iterator[Row]:
    for line, content in enumerate(file, 1):
        if not content.strip():
            continue
        try:
            fields = json.loads(content)
        except (ValueError, RecursionError):
            yield Row(line, "", "", "invalid JSON")
            continue
        if not isinstance(fields, dict):
            yield Row(line, "", "", "no JSON object")
            continue
        missing = [name for name in (text, target) if name not in fields]
        if missing:
            there = ", ".join(map(repr, fields))
            yield Row(line, "", "", f"no {missing[0]!r} among {there or 'no fields'}")
        else:
            yield _row(line, fields[text], fields[target])


def _parquet_rows(path: Path, text: Any, target: Any) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from pyarrow.parquet import ParquetFile  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise DataError(
            f"{path}: Parquet files need pyarrow: pip install 'lightning-dlopt[parquet]'"
        ) from error
    line = 0
    try:
        with ParquetFile(path) as file:
            columns = file.schema_arrow.names
            for name, column in (("text", text), ("target", target)):
                _check_there_once(path, name, column, columns)
            for batch in file.iter_batches(columns=[text, target]):
                values = (_parquet_values(batch.column(column)) for column in (text, target))
                for pair in zip(*values, strict=True):
                    line += 1
                    yield _row(line, *pair)
    except ArrowException as error:
        raise DataError(f"{path}: no readable Parquet file: {one_line(error)}") from error


def _parquet_values(column: Any) -> list[Any]:
    """Return a column's values; a string that can't be decoded spoils its own row only."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = []
        for scalar in column:
            try:
                values.append(scalar.as_py())
            except UnicodeDecodeError:
                values.append("\udcff")
    return values


def _row(line: int, text: Any, label: Any) -> Row:
    """Return a row whose text and label have been looked at."""
    if not isinstance(text, str):
        return Row(line, "", "", "empty text" if text is None else f"text is {text!r:.30}")
    if label is None or (isinstance(label, str) and not label.strip()):
        return Row(line, "", "", "no label")
    if not isinstance(label, str | int):
        return Row(line, "", "", f"label is {label!r:.30}, neither text nor integer")
    if not text.strip():
        return Row(line, "", "", "empty text")
    label = str(label).strip()
    try:
        (text + label).encode()
    except UnicodeEncodeError:
        return Row(line, "", "", UNDECODABLE)
    return Row(line, text, label)
