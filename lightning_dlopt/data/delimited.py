"""Records of CSV and TSV files, and quotes that are never closed."""

import csv
from collections import deque
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

#: What is wrong with a row whose quote isn't closed where its field ends.
STRAY_QUOTE = "stray quote"

#: A field may be as long as csv's C code can count.
_LONGEST_FIELD = 2**31 - 1


class Record(NamedTuple):
    """The fields of a record, the line where it begins, and its lines as they stand in the file."""

    line: int
    fields: list[str]
    lines: list[str]


class Records:
    """Iterates over a file's records; those whose quotes don't fit can be read again.

    A quote that opens a field and isn't closed makes one field of all that follows up to the next
    quote, however many rows that is. :meth:`is_stray` tells such a record, and :meth:`reread`
    goes on with its second line.

    Args:
        file: the lines, with their ends.
        delimiter: what stands between two fields.
        quoted: whether quotes can enclose a field; otherwise they are characters as any other, and
            every line is a record.
    """

    def __init__(self, file: Iterable[str], delimiter: str, quoted: bool = True) -> None:
        self._file = iter(file)
        self._delimiter = delimiter
        self._quoted = quoted
        self._waiting: deque[str] = deque()
        self._taken: list[str] = []
        self._line = 1
        self._ended = False
        self._reader = self._new_reader(self._lines())

    def _new_reader(self, lines: Iterable[str], strict: bool = False) -> "Iterator[list[str]]":
        return csv.reader(
            lines,
            delimiter=self._delimiter,
            quoting=csv.QUOTE_MINIMAL if self._quoted else csv.QUOTE_NONE,
            strict=strict,
        )

    def _lines(self) -> Iterator[str]:
        while True:
            line = self._waiting.popleft() if self._waiting else next(self._file, None)
            if line is None:
                self._ended = True
                return
            self._taken.append(line)
            yield line

    def __iter__(self) -> Iterator[Record]:
        while True:
            self._taken = []
            fields = _next_fields(self._reader)
            if fields is None:
                return
            begins, self._line = self._line, self._line + len(self._taken)
            if fields:
                yield Record(begins, fields, self._taken)

    def is_stray(self, record: Record) -> bool:
        """Return whether a quote of the record just read is closed in a wrong place, or never."""
        if not self._quoted or (len(record.lines) == 1 and not self._ended):
            return False
        limit = csv.field_size_limit(_LONGEST_FIELD)
        try:
            list(self._new_reader(record.lines, strict=True))
        except csv.Error:
            return True
        finally:
            csv.field_size_limit(limit)
        return False

    def swallows(self, record: Record, place: Sequence[int], labels: Container[str]) -> bool:
        """Return whether most of a record's lines look like rows of their own.

        They have as many fields, and at ``place[1]`` one of the labels. So a stray quote is found
        though the next one happens to stand at the end of a field. The line that holds the
        record's own label looks so in any case and isn't counted: the last if the text, at
        ``place[0]``, comes before it, otherwise the first.
        """
        text, target = place
        lines = record.lines[:-1] if text < target else record.lines[1:]
        rows = 0
        for line in lines:
            fields = line.rstrip("\r\n").split(self._delimiter)
            rows += len(fields) == len(record.fields) and fields[target].strip() in labels
        return rows > len(lines) / 2

    def reread(self, record: Record) -> None:
        """Go on with the second line of the record just read."""
        self._line = record.line + 1
        self._waiting.extendleft(reversed(record.lines[1:]))
        self._ended = False
        self._reader = self._new_reader(self._lines())


def _next_fields(reader: "Iterator[list[str]]") -> list[str] | None:
    limit = csv.field_size_limit(_LONGEST_FIELD)  # global, so only while a record is read
    try:
        return next(reader, None)
    except csv.Error:  # Python 3.10 refuses NUL characters
        return [""]
    finally:
        csv.field_size_limit(limit)
