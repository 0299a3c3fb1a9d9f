"""Words of texts, and the numbers that stand for them."""

import re
from collections.abc import Iterable, Mapping

from lightning_dlopt.core.checks import check_integer

#: The number of what fills a batch up.
PAD_ID = 0

#: The number of every word that the vocabulary lacks.
UNKNOWN_ID = 1

#: The names under which the two stand in a vocabulary.
SPECIAL = ("<pad>", "<unknown>")

_WORDS = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


def split_words(text: str) -> list[str]:
    """Return a text's words in lower case, and its punctuation marks.

    Example:
        >>> split_words("Don't panic, it's 42!")
        ["don't", 'panic', ',', "it's", '42', '!']
    """
    return _WORDS.findall(text.lower())


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
