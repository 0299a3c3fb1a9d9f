"""The report as Markdown."""

import re

from lightning_dlopt.evidence.analysis import Analysis
from lightning_dlopt.evidence.report.facts import (
    READING,
    Fact,
    all_notes,
    baseline_line,
    changes,
    headline,
    measured,
)
from lightning_dlopt.evidence.report.numbers import choose_scale, clean
from lightning_dlopt.evidence.report.tables import Table, costs, effects, failures
from lightning_dlopt.evidence.report.theme import SIGNS
from lightning_dlopt.evidence.runs import Study


def escape(text: str) -> str:
    r"""Return text of which Markdown reads nothing as its own, in a table as well.

    Example:
        >>> escape("a|b `c` <d>")
        'a&#124;b \\`c\\` &lt;d&gt;'
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # an underscore within a word is one; elsewhere it may begin emphasis
    text = re.sub(r"([\\`*{}\[\]#~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text)
    return text.replace("|", "&#124;")


def escape_item(text: str) -> str:
    r"""Return text that doesn't begin a list or a rule of its own where it stands in a list.

    Example:
        >>> escape_item("- 1"), escape_item("2. b")
        ('\\- 1', '2\\. b')
    """
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", escape(text))


def write_code(text: str) -> str:
    """Return text as code: on one line if it is one, else as a block of its own."""
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    if "\n" in text.strip():
        fence = "`" * max(3, longest + 1)
        return f"{fence}yaml\n{text.strip()}\n{fence}"
    ticks = "`" * (longest + 1)
    space = " " if "`" in text else ""
    return f"{ticks}{space}{clean(text)}{space}{ticks}"


def write_table(table: Table) -> str:
    """Return a table in GitHub's Markdown; verdicts are set off."""
    line = [":--" if index in table.words else "--:" for index in range(len(table.columns))]
    lines = [[escape(column) for column in table.columns], line]
    for row in table.rows:
        cells = [escape(cell) for cell in row.cells]
        lines.append(
            [
                f"**{SIGNS[row.role]}{cell}**" if cell == row.role and cell in SIGNS else cell
                for cell in cells
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write_markdown(study: Study, analysis: Analysis) -> str:
    """Return the report; it shows the pictures that lie beside it."""
    scale = choose_scale(study, analysis)
    blocks = [
        f"# Comparison on {escape(clean(study.outcome))}",
        f"**{escape(headline(study, analysis))}**",
        escape(baseline_line(analysis, scale)),
    ]
    if notes := all_notes(study, analysis):
        blocks += ["## Notes", "\n".join(f"- {escape_item(note)}" for note in notes)]
    blocks += [
        "## Effects",
        "![Effect of each arm with its 95 % interval](effects.png)",
        write_table(effects(study, analysis, scale)),
        "## Time, memory and failed runs",
        "![Outcome against training time](time.png)",
        write_table(costs(study, analysis, scale)),
        "## Learning curves",
        f"![{escape(clean(study.metric))} in the course of training](curves.png)",
    ]
    failed = failures(study)
    if failed.rows:
        blocks += ["## Failures", write_table(failed)]
    blocks += ["## What each arm changes", write_changes(study, analysis)]
    facts = [write_fact(fact) for fact in measured(study, analysis)]
    blocks += ["## How it was measured", "\n".join(facts)]
    blocks += ["## How to read it", "\n".join(f"- {escape(line)}" for line in READING)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def write_changes(study: Study, analysis: Analysis) -> str:
    """Return a list of the arms with what each lays over the base."""
    items = []
    for name, parts in changes(study, analysis):
        codes = [write_code(part) for part in parts if part.strip()]
        if not codes:
            items.append(f"- {escape_item(name)}: nothing")
        elif any("\n" in code for code in codes):
            blocks = "\n\n".join(codes).replace("\n", "\n  ")
            items.append(f"- {escape_item(name)}:\n\n  {blocks}\n")
        else:
            items.append(f"- {escape_item(name)}: {', '.join(codes)}")
    return re.sub(r"[ ]+\n", "\n", "\n".join(items)).rstrip()


def write_fact(fact: Fact) -> str:
    """Return a fact as an item of a list."""
    return f"- {escape(fact.name)}: {write_code(fact.text) if fact.code else escape(fact.text)}"
