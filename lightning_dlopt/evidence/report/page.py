"""The report as one page of HTML, which needs no other file."""

import base64
import struct
from html import escape
from pathlib import Path

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
from lightning_dlopt.evidence.report.figures import DPI, draw
from lightning_dlopt.evidence.report.numbers import NOTHING, choose_scale, clean
from lightning_dlopt.evidence.report.tables import Table, costs, effects, failures
from lightning_dlopt.evidence.report.theme import DARK, LIGHT, SIGNS
from lightning_dlopt.evidence.runs import BASELINE, Study

#: Up to this width a page has its narrow pictures, and its tables are cards; as in page.css.
NARROW = "(max-width: 43.99rem)"
CAPTIONS = {
    "effects": "Each arm's effect with its 95 % interval, from best to worst. The gray band is the "
    "interval of A/A: the baseline against itself with other seeds. Filled triangles are effects "
    "that were told: up, helps; down, hurts. An arrow marks what goes on beyond the axis.",
    "time": "Where each arm ended: outcome and training time, means over seeds, with their "
    "standard deviations. Lines are the mean courses of {metric}.",
    "curves": "{metric} in validation: mean over the finished runs, with a band of one standard "
    "deviation over seeds. Dashed in small pictures: the baseline. A dotted line that ends in a "
    "cross is a run that failed.",
}


def write_page(study: Study, analysis: Analysis, wide: dict[str, bytes]) -> str:
    """Return the page: pictures inside, nothing loaded, no script.

    ``wide`` has the pictures that are files as well, by name.
    """
    scale = choose_scale(study, analysis)
    title = f"Comparison on {clean(study.outcome)}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(headline(study, analysis))}</p>',
        f"<p>{escape(baseline_line(analysis, scale))}</p>",
    ]
    if notes := all_notes(study, analysis):
        parts.append(f'<aside class="notes"><h2>Notes</h2>{write_list(notes)}</aside>')
    parts += [
        section(
            "Effects", [picture("effects", study, analysis, wide)], effects(study, analysis, scale)
        ),
        section(
            "Time, memory and failed runs",
            [picture("time", study, analysis, wide)],
            costs(study, analysis, scale),
        ),
        section("Learning curves", [picture("curves", study, analysis, wide)]),
    ]
    failed = failures(study)
    parts += [section("Failures", [], failed)] if failed.rows else []
    parts += [
        section("What each arm changes", [write_changes(study, analysis)]),
        section("How it was measured", [write_facts(measured(study, analysis))]),
        section("How to read it", [write_list(READING)]),
    ]
    css = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, blocks: list[str], table: Table | None = None) -> str:
    """Return a section with a heading, blocks of HTML and, last, a table."""
    blocks = [*blocks, write_table(table, title)] if table else blocks
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(blocks) + "\n</section>"


def write_table(table: Table, title: str) -> str:
    """Return a table, which is one of cards where the page is narrow.

    The roles say again what the elements are, since browsers forget it of a table shown as blocks.
    """
    last = len(table.columns) - 1

    def kind(index: int) -> str:
        if index == last and table.columns[index] == "reason":
            return "reason"
        if table.columns[index] == "verdict":
            return "verdict"
        return "" if index in table.words else "number"

    head = "".join(
        f'<th scope="col" role="columnheader" class="{kind(index)}">{escape(column)}</th>'
        for index, column in enumerate(table.columns)
    )
    lines = [
        f'<div class="scroll"><table class="cards" role="table" aria-label="{escape(title)}">',
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n<tbody role="rowgroup">',
    ]
    for row in table.rows:
        cells = [f'<th scope="row" role="rowheader">{escape(row.cells[0])}</th>']
        for index, cell in enumerate(row.cells[1:], start=1):
            label = escape(table.columns[index])
            sign = SIGNS.get(row.role, "") if cell == row.role else ""
            empty = " nothing" if cell == NOTHING else ""
            cells.append(
                f'<td role="cell" class="{kind(index)}{empty}" data-label="{label}">'
                f"<span>{sign}{escape(cell)}</span></td>"
            )
        role = row.role.replace("can't tell", "open")
        lines.append(f'<tr role="row" class="{role}">{"".join(cells)}</tr>')
    return "\n".join([*lines, "</tbody></table></div>"])


def picture(name: str, study: Study, analysis: Analysis, wide: dict[str, bytes]) -> str:
    """Return a picture with its caption: narrow or wide, light or dark, as the reader's page is."""
    sources = []
    for narrow, theme in ((True, DARK), (True, LIGHT), (False, DARK), (False, LIGHT)):
        own = narrow or theme is DARK
        data = draw(name, study, analysis, theme, narrow) if own else wide[name]
        width, height = (round(side * 96 / DPI) for side in struct.unpack(">II", data[16:24]))
        address = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        when = [NARROW] * narrow + ["(prefers-color-scheme: dark)"] * (theme is DARK)
        size = f'width="{width}" height="{height}"'
        if when:
            sources.append(f'<source media="{" and ".join(when)}" srcset="{address}" {size}>')
        else:
            text = escape(f"{name}: {headline(study, analysis)} The tables have the numbers.")
            sources.append(f'<img src="{address}" alt="{text}" {size}>')
    caption = escape(CAPTIONS[name].format(metric=clean(study.metric)))
    return (
        f'<figure id="{name}">\n<picture>\n'
        + "\n".join(sources)
        + f"\n</picture>\n<figcaption>{caption}</figcaption>\n</figure>"
    )


def write_code(text: str) -> str:
    """Return text as code: on one line if it is one, else as a block of its own."""
    if "\n" in text.strip():
        return f"<pre><code>{escape(text.strip())}</code></pre>"
    return f"<code>{escape(clean(text))}</code>"


def write_changes(study: Study, analysis: Analysis) -> str:
    """Return a list of the arms with what each lays over the base, and the base itself."""
    items = []
    for name, parts in changes(study, analysis):
        codes = [write_code(part) for part in parts if part.strip()] or ["nothing"]
        items.append(f"<dt>{escape(name)}</dt><dd>{' '.join(codes)}</dd>")
    base = study.configs.get(BASELINE, "").strip()
    shown = (
        "<details><summary>The baseline's whole configuration</summary>"
        f"<pre><code>{escape(base)}</code></pre></details>"
        if base
        else ""
    )
    return f"<dl>{''.join(items)}</dl>{shown}"


def write_list(lines: list[str]) -> str:
    """Return lines of text as a list."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def write_facts(facts: list[Fact]) -> str:
    """Return facts as a list of names and texts."""
    items = [
        f"<dt>{escape(fact.name)}</dt>"
        f"<dd>{write_code(fact.text) if fact.code else escape(fact.text)}</dd>"
        for fact in facts
    ]
    return f"<dl>{''.join(items)}</dl>"
