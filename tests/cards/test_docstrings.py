"""Docstrings in parts, and as Markdown."""

import doctest
import importlib
from pathlib import Path

import pytest

from benchmarks.cards.docstrings import markdown, parse

TEXT = """\
Do something in one line.

What changes in training: this,
and that.

It is old. Source: A. Author, A Title, 1999,
arXiv:9901.00001. We differ.

When:
    You want to.

When not:
    You don't, or
    can't.

Args:
    first: a number,
        above 0.
    second: see :class:`Other`.

Said between sections.

Raises:
    ArgumentError, ArgumentTypeError: if ``first`` is bad.

Example:
    >>> do(1)
    Done: 1
"""


def test_every_part_is_found() -> None:
    parts = parse(TEXT)
    assert parts.summary == "Do something in one line."
    assert parts.body == [
        "What changes in training: this,\nand that.",
        "It is old.",
        "Said between sections.",
    ]
    assert parts.source == ["Source: A. Author, A Title, 1999,\narXiv:9901.00001. We differ."]
    assert parts.sections["When"] == "You want to."
    assert parts.sections["When not"] == "You don't, or\ncan't."
    assert parts.entries("Args") == {"first": "a number, above 0.", "second": "see :class:`Other`."}
    assert parts.entries("Raises") == {"ArgumentError, ArgumentTypeError": "if ``first`` is bad."}
    assert parts.entries("Warns") == {}


def test_a_source_need_not_be_called_so() -> None:
    parts = parse("Do.\n\nFrom A. Author (1999).\n\nAs B. Author, arXiv:1, does.\n\nMore.")
    assert parts.source == ["From A. Author (1999).", "As B. Author, arXiv:1, does."]
    assert parts.body == ["More."]
    said = parse("Do.\n\nAs B. Author, arXiv:1, does.\n\nSource: A. Author.")
    assert said.source == ["Source: A. Author."]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("``a`` and ``b_c * d``", "`a` and `b_c * d`"),
        ("see :class:`~a.b.Known`", "see [`Known`](known.md)"),
        (":class:`.Known`, :func:`other`", "[`Known`](known.md), `other`"),
        (":mod:`a.b`", "`a.b`"),
        ("a_b <c> *", r"a\_b &lt;c> \*"),
        ("arXiv:1412.6980, 1", "[arXiv:1412.6980](https://arxiv.org/abs/1412.6980), 1"),
        ("arXiv:math/0307152; 1", "[arXiv:math/0307152](https://arxiv.org/abs/math/0307152); 1"),
        ("two\nlines", "two lines"),
        ("an *old* **and** 2 ** (3 * 4) * 5", r"an *old* **and** 2 \*\* (3 \* 4) \* 5"),
        ("of two:\n- one\n  more\n- *two*", "of two:\n- one more\n- *two*"),
    ],
)
def test_markdown(text: str, shown: str) -> None:
    assert markdown(text, {"Known": "known.md"}.get) == shown


FILES = sorted(Path(__file__).parents[2].glob("benchmarks/cards/*.py"))


@pytest.mark.parametrize(
    "name", [file.stem for file in FILES if file.stem not in ("__init__", "__main__")]
)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"benchmarks.cards.{name}")).failed == 0
