"""One technique's card."""

import inspect
import re
from typing import Any

from benchmarks.cards import effects, networks_measured, numbers, usage
from benchmarks.cards.conflicts import conflicts
from benchmarks.cards.docstrings import docstring_of, markdown
from benchmarks.cards.effects import NOT_MEASURED, UP
from benchmarks.cards.measured import Evidence
from benchmarks.cards.pruned_measured import pruned_section
from benchmarks.cards.techniques import FAMILIES, MIXINS, Entry, card_of, entries, recipes_of
from lightning_dlopt import optimizers

KINDS = {"callback": "callback", "optimizer": "for `UseOptimizer`", "network": "network"}
MADE = "<!-- Made by `python -m benchmarks.cards --write` from the docstring and the results. -->"


def card(entry: Entry, evidence: Evidence, runs: networks_measured.Runs) -> str:
    """Return the card of a technique as Markdown."""
    documented = entry.docstring
    sections = [
        MADE,
        f"# {entry.name}",
        f"{FAMILIES[entry.family]} · {KINDS[entry.kind]} · [all techniques](README.md)",
        _prose(documented.summary),
        _in_short(entry, evidence, runs),
        "## What changes in training" if entry.kind != "network" else "## What it is",
        *[_prose(_without_opening(p)) for p in documented.body or [documented.summary]],
        *_details(entry),
        "## Source, and what is different here",
        *[_prose(_without_opening(paragraph)) for paragraph in documented.source],
        "## When",
        _prose(_linked(documented.sections["When"])),
        "## When not",
        _prose(_linked(documented.sections["When not"])),
        "## Arguments",
        _arguments(entry),
        *_shape(entry),
        "## Cost in time and memory",
        _cost(entry, evidence, runs),
        "## Conflicts",
        _conflicts(entry),
        *_refusals(entry),
        *_use(entry),
        "## Measured effect",
        _effect(entry, evidence, runs),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _prose(text: str) -> str:
    return markdown(text, card_of)


def _without_opening(paragraph: str) -> str:
    """Return a paragraph without the words that are the section's title already."""
    rest = re.sub(r"^(?:What changes in training|Sources?): ", "", paragraph)
    return rest if rest == paragraph else rest[0].upper() + rest[1:]


def _linked(text: str) -> str:
    """Return a text in which techniques' bare names are roles."""
    names = "|".join(map(re.escape, entries()))
    return re.sub(rf"(?<![`\w])({names})(?![`\w])", r":class:`\1`", text)


def _in_short(entry: Entry, evidence: Evidence, runs: networks_measured.Runs) -> str:
    """Return the outcome in a line for each arm, so that nobody must search for it."""
    lines = []
    for measured, arms in evidence.of(entry.name):
        for arm in arms:
            result = measured.result(arm.name)
            if result is None or measured.study is None:
                continue
            unit = numbers.Unit.of(measured.study)
            failed = f"; failed runs: {numbers.failures(result)}" if result.failures else ""
            lines.append(
                f"- `{arm.name}`: {numbers.verdict(result)}, {unit.interval(result)} {unit.name}; "
                f"time of a step {numbers.times(result.step_ratio)}{failed}"
            )
    if lines:
        return "**Measured**, as the last section says in full:\n\n" + "\n".join(lines)
    if entry.kind == "network" and runs:
        return "**Measured** beside the other networks in the last section."
    return f"**Measured**: {NOT_MEASURED}."


def _details(entry: Entry) -> list[str]:
    """Return what holds for all techniques of a kind, folded."""
    kinds = [(f"What holds for every <code>{b.__name__}</code>", b) for b in entry.bases]
    found = [(title, docstring_of(base)) for title, base in kinds]
    if entry.name == "UseOptimizer":
        found.append(("What torch's optimizers compute", docstring_of(optimizers)))
    folded = []
    for title, parts in found:
        paragraphs = [parts.summary, *parts.body, *parts.source]
        if len(paragraphs) > 1:
            content = "\n\n".join(map(_prose, paragraphs))
            folded.append(f"<details><summary>{title}</summary>\n\n{content}\n\n</details>")
    return folded


def _arguments(entry: Entry) -> str:
    documented = entry.docstring.entries("Args")
    parameters = inspect.signature(entry.cls).parameters
    if not parameters:
        return "None."
    return "\n".join(
        f"- `{name}` ({_kind(parameter)}): {_prose(_resolved(entry, name, documented[name]))}"
        for name, parameter in parameters.items()
    )


def _shape(entry: Entry) -> list[str]:
    shape = entry.docstring.sections.get("Shape")
    return ["## Shape", _prose(shape)] if shape else []


def _kind(parameter: inspect.Parameter) -> str:
    """Return the type of an argument and its default."""
    shown = inspect.formatannotation(parameter.annotation)
    shown = re.sub(r"\b(?:collections|typing|torch|lightning_dlopt)(?:\.\w+)*\.(?=\w)", "", shown)
    default = parameter.default
    return f"`{shown}`" + ("" if default is parameter.empty else f", by default `{default!r}`")


def _resolved(entry: Entry, name: str, text: str) -> str:
    """Return an argument's description, that of another class if it refers to that."""
    refers = re.match(r"see :class:`(\w+)`[.;]?\s*(.*)$", text)
    if not refers:
        return text
    classes: dict[str, Any] = {base.__name__: base for base in entry.bases}
    classes |= {other.name: other.cls for other in entries().values()}
    there = docstring_of(classes[refers[1]]).entries("Args")[name]
    rest = refers[2]
    return there + (f" {rest[0].upper()}{rest[1:]}" if rest else "")


def _cost(entry: Entry, evidence: Evidence, runs: networks_measured.Runs) -> str:
    measured = effects.costs(entry, evidence)
    if measured:
        return measured
    if entry.kind == "network" and runs:
        return "Parameters, multiply-adds and times are in the table of the last section."
    return f"{NOT_MEASURED[0].upper()}{NOT_MEASURED[1:]}."


def _conflicts(entry: Entry) -> str:
    if entry.kind == "network":
        return "None."
    lines = conflicts(entry)
    return "\n".join(f"- {line}" for line in lines) or (
        "No other technique of this package is refused beside it."
    )


def _refusals(entry: Entry) -> list[str]:
    lines = []
    for cls in [entry.cls, *entry.bases]:
        for section in ("Raises", "Warns"):
            for name, text in docstring_of(cls).entries(section).items():
                if name != "ConflictError":
                    lines.append(f"- `{name.replace(', ', '`, `')}`: {_prose(text)}")
    return ["## Errors and warnings", "\n".join(dict.fromkeys(lines))] if lines else []


def _use(entry: Entry) -> list[str]:
    first, *others = recipes_of(entry)
    stem = f"[`{first.path}`]({UP}{first.path})"
    lays = "a complete recipe" if entry.kind == "network" else "laid over a configuration"
    parts = ["## YAML", f"{stem}, {lays}:", f"```yaml\n{first.text.strip()}\n```"]
    if others:
        links = ", ".join(f"[`{r.path}`]({UP}{r.path})" for r in others)
        parts.append(f"Also in {links}.")
    parts += ["## Python", f"```python\n{usage.python(entry)}\n```"]
    if entry.kind != "network":
        name, _ = MIXINS[entry.family]
        brings = " (a `LightningDataModule` may bring it as well)"
        parts.append(
            f"A module of your own brings it with `{name}`"
            f"{brings if entry.family == 'augmentation' else ''}:"
        )
        parts.append(f"```python\n{usage.mixin(entry)}\n```")
    functions = usage.functions(entry)
    if functions:
        lines = [f"- `{name}`: {_prose(text)}" for name, text in functions.items()]
        parts += [
            f"For a loop of your own, from `lightning_dlopt.{entry.family}`:",
            "\n".join(lines),
        ]
    return parts


def _effect(entry: Entry, evidence: Evidence, runs: networks_measured.Runs) -> str:
    parts = [effects.effects(entry, evidence)]
    if entry.kind == "network" and runs:
        parts.append(networks_measured.networks_section(entry, runs))
    elif not parts[0]:
        parts = [f"{NOT_MEASURED[0].upper()}{NOT_MEASURED[1:]}."]
    parts.append(pruned_section(entry))
    return "\n\n".join(part for part in parts if part)
