"""What a docstring says, section by section, and the same as Markdown."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field

#: A section begins with such a line, followed by indented ones.
HEADER = re.compile(r"^([A-Z][A-Za-z ]*):$")
ROLE = re.compile(r":(?:class|func|meth|mod):`~?([^`]+)`")
EMPHASIS = re.compile(r"(\*{1,2}[^*\s](?:[^*]*[^*\s])?\*{1,2})")
ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \w+)*): (.*)$", re.DOTALL)

Link = Callable[[str], str | None]


@dataclass
class Docstring:
    """A docstring in parts.

    Attributes:
        summary: its first line.
        body: the paragraphs that are in no section, without those in ``source``.
        source: the paragraphs that say whose idea it is, and what differs from it.
        sections: of each section its text, without indentation.
    """

    summary: str
    body: list[str] = field(default_factory=list)
    source: list[str] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)

    def entries(self, section: str) -> dict[str, str]:
        """Return the entries of a section such as ``Args``, by name, each in one line."""
        found: dict[str, str] = {}
        last = ""
        for line in self.sections.get(section, "").splitlines():
            entry = ENTRY.match(line)
            if entry:
                last = entry[1]
                found[last] = entry[2]
            elif last:
                found[last] += " " + line.strip()
        return found


def docstring_of(documented: object) -> Docstring:
    """Return the docstring of a class, function or module in parts."""
    return parse(inspect.getdoc(documented) or "")


def parse(text: str) -> Docstring:
    """Take a docstring apart.

    Example:
        >>> parts = parse("Do.\\n\\nMore of it. Source: A. Author.\\n\\nArgs:\\n    x: a number.")
        >>> parts.body, parts.source, parts.entries("Args")
        (['More of it.'], ['Source: A. Author.'], {'x': 'a number.'})
    """
    summary, _, rest = text.partition("\n")
    parts = Docstring(summary.strip())
    paragraphs: list[str] = []
    lines = rest.strip("\n").splitlines()
    section, own = "", list[str]()
    for number, line in enumerate(lines):
        after = lines[number + 1] if number + 1 < len(lines) else ""
        header = HEADER.match(line)
        if header and after.startswith("    "):
            section = header[1]
            parts.sections[section] = ""
        elif section and (not line or line.startswith("    ")):
            parts.sections[section] += line.removeprefix("    ") + "\n"
        else:
            section = ""
            own.append(line)
    for name, content in parts.sections.items():
        parts.sections[name] = content.strip("\n")
    paragraphs = [p.strip("\n") for p in re.split(r"\n\n+", "\n".join(own).strip("\n")) if p]
    _sort(paragraphs, parts)
    return parts


def _sort(paragraphs: list[str], parts: Docstring) -> None:
    """Tell the source's paragraphs from the others."""
    said = any(re.search(r"\bSources?\b[:,]", paragraph) for paragraph in paragraphs)
    for paragraph in paragraphs:
        marked = re.search(r"\bSources?\b[:,]", paragraph)
        if marked:
            before = paragraph[: marked.start()].strip()
            if before:
                parts.body.append(before)
            parts.source.append(paragraph[marked.start() :])
        elif not said and (paragraph.startswith("From ") or "arXiv:" in paragraph):
            parts.source.append(paragraph)
        else:
            parts.body.append(paragraph)


def markdown(text: str, link: Link) -> str:
    """Return a paragraph, or a list in one, as Markdown; ``link`` knows the addresses of names.

    Example:
        >>> print(markdown("See :class:`EMA`: ``a_b`` < a_b.", {"EMA": "ema.md"}.get))
        See [`EMA`](ema.md): `a_b` &lt; a\\_b.
    """
    items = re.split(r"\n(?=[-*] )", text)
    lines = [" ".join(item.split()) for item in items]
    return "\n".join(_inline(line, link) for line in lines)


def _inline(line: str, link: Link) -> str:
    bullet, line = (line[:2], line[2:]) if line.startswith(("- ", "* ")) else ("", line)
    pieces = re.split(r"(:(?:class|func|meth|mod):`[^`]+`|``.+?``|`[^`]+`)", line)
    return ("- " if bullet else "") + "".join(_piece(piece, link) for piece in pieces)


def _piece(piece: str, link: Link) -> str:
    role = ROLE.fullmatch(piece)
    if role:
        shown = role[1] if piece.startswith(":mod:") else role[1].rpartition(".")[2]
        shown = shown.lstrip(".")
        address = link(shown)
        return f"[`{shown}`]({address})" if address else f"`{shown}`"
    if piece.startswith("``"):
        return f"`{piece[2:-2]}`"
    if piece.startswith("`"):
        return piece
    piece = "".join(
        part if EMPHASIS.fullmatch(part) else part.replace("*", r"\*")
        for part in EMPHASIS.split(piece)
    )
    piece = piece.replace("<", "&lt;").replace("_", r"\_")
    piece = re.sub(r"arXiv:([a-z]+/\d+|\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", piece)
    return re.sub(r"(?<!\()(https://(?!arxiv)\S+?)(?=[;,]?(?:\s|$))", r"<\1>", piece)
