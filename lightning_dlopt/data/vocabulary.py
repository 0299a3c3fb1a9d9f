"""Words of texts, and the numbers that stand for them."""

import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache

from lightning_dlopt.core.checks import check_integer

#: The number of what fills a batch up.
PAD_ID = 0

#: The number of every word that the vocabulary lacks.
UNKNOWN_ID = 1

#: The names under which the two stand in a vocabulary.
SPECIAL = ("<pad>", "<unknown>")

_WORDS = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")

#: Characters that join letters without being seen: Persian and Indic words have them inside.
_JOINERS = "\u200c\u200d"


def split_words(text: str) -> list[str]:
    """Return a text's words in lower case, and its punctuation marks.

    Combining marks belong to the character that they stand on, and letters that can be written
    with and without one (``é``) become the same (Unicode's form NFC).

    Example:
        >>> split_words("Don't panic, it's 42!")
        ["don't", 'panic', ',', "it's", '42', '!']
        >>> split_words("हिन्दी भाषा।")
        ['हिन्दी', 'भाषा', '।']
    """
    text = text.lower()
    if text.isascii():
        return _WORDS.findall(text)
    return _words_with_marks().findall(unicodedata.normalize("NFC", text))


@cache
def _words_with_marks() -> re.Pattern[str]:
    """Return the pattern of words that may hold combining marks, which regex words may not."""
    # the first and the last of each run, since a class of ranges is matched much faster
    spans: list[list[int]] = []
    for code, character in enumerate(map(chr, range(sys.maxunicode + 1))):
        if unicodedata.category(character)[0] != "M" and character not in _JOINERS:
            continue
        if spans and spans[-1][1] == code - 1:
            spans[-1][1] = code
        else:
            spans.append([code, code])
    joined = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in spans)
    word = rf"\w[\w{joined}]*"
    return re.compile(rf"{word}(?:['\u2019]{word})*|[^\w\s][{joined}]*")


def build_vocabulary(
    counts: Mapping[str, int], vocab_size: int, min_count: int = 1
) -> tuple[str, ...]:
    """Return the words that have a number of their own, by number.

    The first two stand for padding and for unknown words; the others come by how often they
    occur, and words that occur equally often in alphabetical order.

    Args:
        counts: how often each word occurs.
        vocab_size: how many numbers there are at most, these two included; at least 3.
        min_count: how often a word must occur to have one, at least 1.

    Example:
        >>> build_vocabulary({"b": 2, "a": 2, "c": 5, "rare": 1}, vocab_size=10, min_count=2)
        ('<pad>', '<unknown>', 'c', 'a', 'b')

    Raises:
        ArgumentError: if a number is outside its range.
    """
    check_integer("build_vocabulary", "vocab_size", vocab_size, "[3, inf)")
    check_integer("build_vocabulary", "min_count", min_count, "[1, inf)")
    # a word that is called like one of the two would be taken for it where the vocabulary is read
    often = [word for word in counts if counts[word] >= min_count and word not in SPECIAL]
    often.sort(key=lambda word: (-counts[word], word))
    return (*SPECIAL, *often[: vocab_size - len(SPECIAL)])


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of classes in order: integers by value, else all alphabetically.

    Example:
        >>> sort_names(["10", "9"]), sort_names(["10", "9", "none"])
        (('9', '10'), ('10', '9', 'none'))
    """
    once = sorted(set(names))
    if all(re.fullmatch(r"-?\d{1,18}", name) for name in once):
        once.sort(key=int)
    return tuple(once)
