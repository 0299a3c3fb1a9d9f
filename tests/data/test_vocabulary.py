"""Words of texts in scripts with and without combining marks."""

import unicodedata

import pytest

from lightning_dlopt.data.vocabulary import split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी भाषा, कि", ["हिन्दी", "भाषा", ",", "कि"]),
        ("Ça va? L\u2019été!", ["ça", "va", "?", "l\u2019été", "!"]),
        ("\u0645\u06cc\u200c\u062e\u0648", ["\u0645\u06cc\u200c\u062e\u0648"]),
        ("שָׁלוֹם עולם", [unicodedata.normalize("NFC", "שָׁלוֹם"), "עולם"]),
        ("İstanbul x\u0302y", ["i\u0307stanbul", "x\u0302y"]),
        ("ภาษาไทย", ["ภาษาไทย"]),
        ("日本、東京", ["日本", "、", "東京"]),
        ("\u0301 ♥\ufe0f!", ["\u0301", "♥\ufe0f", "!"]),
        ("ne\u0301 42", ["né", "42"]),
    ],
)
def test_marks_belong_to_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words
    for form in ("NFC", "NFD"):
        assert split_words(unicodedata.normalize(form, text)) == words  # type: ignore[arg-type]


def test_words_without_marks_are_the_same_by_both_patterns() -> None:
    text = "Don't 'panic', it's 42 (or 4_2)... rock'n'roll!"
    assert [*split_words(text), "é"] == split_words(f"{text} é")
