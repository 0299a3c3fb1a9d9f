"""Reading a report back: its headings, tables and text, from HTML or from Markdown."""

from html.parser import HTMLParser

from markdown_it import MarkdownIt


class Reader(HTMLParser):
    """What stands in a document.

    ``headings`` are texts of h1 and h2; ``tables`` are lists of rows of cells; ``text`` is all
    that is shown; ``tags`` are all elements with their attributes.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.headings: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag in ("h1", "h2"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data
        if self._open and self._open[-1] in ("h1", "h2"):
            self.headings[-1] += data

    def table(self, column: str) -> dict[str, dict[str, str]]:
        """Return the table with such a column: rows by their first cell, cells by column."""
        (found,) = [table for table in self.tables if column in table[0]]
        head, *rows = found
        return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def read_markdown(text: str) -> Reader:
    """Return what a reader of Markdown with tables sees."""
    return Reader(MarkdownIt("commonmark").enable("table").render(text))


def number(text: str) -> float | None:
    """Return the number that a cell begins with; per cent and percentage points as shares."""
    text = text.replace("\N{MINUS SIGN}", "-").replace("\N{MULTIPLICATION SIGN}", " ").strip()
    if text == "\N{EN DASH}":
        return None
    share = text.endswith(("%", "pp"))
    return float(text.split()[0]) / (100 if share else 1)
