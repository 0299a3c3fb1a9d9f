"""What can't stand beside a technique, from its class and from docstrings."""

import re

from benchmarks.cards.docstrings import ROLE, docstring_of, markdown
from benchmarks.cards.techniques import Entry, card_of, entries


def conflicts(entry: Entry) -> list[str]:
    """Return what a technique excludes and what excludes it, a line of Markdown each."""
    lines = []
    word = getattr(entry.cls, "exclusive", None)
    if word is not None:
        others = [o for o in entries().values() if getattr(o.cls, "exclusive", None) == word]
        beside = ", ".join(f"[`{o.name}`]({o.file})" for o in others if o.name != entry.name)
        lines.append(f"One *{word}* in a run" + (f": not beside {beside}." if beside else "."))
    lines += [_sentence(text) for text in own_conflicts(entry)]
    for other in entries().values():
        if word is not None and getattr(other.cls, "exclusive", None) == word:
            continue
        if other.name != entry.name and (text := _excludes(other, entry)):
            lines.append(f"[`{other.name}`]({other.file}) can't stand {markdown(text, card_of)}")
    return list(dict.fromkeys(lines))


def own_conflicts(entry: Entry) -> list[str]:
    """Return what a class and those that it is built on say of ConflictErrors."""
    documented = [docstring_of(cls).entries("Raises") for cls in [entry.cls, *entry.bases]]
    return [raised["ConflictError"] for raised in documented if "ConflictError" in raised]


def _excludes(other: Entry, entry: Entry) -> str | None:
    """Return what another technique says of ConflictErrors, if it names this one or its kind."""
    names = {entry.name, *(base.__name__ for base in entry.bases)}
    said = docstring_of(other.cls).entries("Raises").get("ConflictError", "")
    named = {role.rpartition(".")[2] for role in ROLE.findall(said)}
    return said if named & names else None


def _sentence(text: str) -> str:
    shown = markdown(text, card_of)
    shown = re.sub(r"^beside", "Not beside", shown)
    return shown[0].upper() + shown[1:]
