"""The picture of the effects: one line for each arm."""

from typing import Any

import numpy as np

from lightning_dlopt.evidence.analysis import Analysis, ArmResult
from lightning_dlopt.evidence.report.numbers import Scale, choose_scale, clean
from lightning_dlopt.evidence.report.order import in_order, role_of
from lightning_dlopt.evidence.report.tables import name_of, verdict_of
from lightning_dlopt.evidence.report.theme import (
    MARKS,
    Theme,
    dress,
    fit,
    is_filled,
    measure,
    new_figure,
    say_nothing_yet,
    shorten,
)
from lightning_dlopt.evidence.runs import A_A, Study

#: Sizes of letters in points.
WIDE, NARROW = 9.0, 8.0


def draw_effects(study: Study, analysis: Analysis, theme: Theme, narrow: bool = False) -> Any:
    """Return a figure with each arm's effect and interval, sorted, over the band of A/A.

    A narrow one has each arm's name above its line, for a phone.
    """
    results = in_order(study, analysis)
    scale = choose_scale(study, analysis)
    rows = max(len(results), 1)
    width, height = (3.6, 0.6 + 0.44 * rows) if narrow else (9, 0.62 + 0.3 * rows)
    figure = new_figure(theme, width, height)
    if not results:
        return say_nothing_yet(figure, theme, "no arms")
    # the columns of text have the width of their longest line, and the axes what is left
    names = [
        fit(name_of(result), *((NARROW, 138) if narrow else (WIDE, 205))) for result in results
    ]
    texts = [numbers_of(result, scale) for result in results]
    left = right = 6.0
    if not narrow:
        left = 16 + max(measure(name, WIDE) for name in names)
        right = 84 + max(measure(text, WIDE) for text in texts)
    figure.set_layout_engine("none")
    box = (left / 72, 0.5, width - (left + right) / 72, height - 0.55)
    axes = figure.add_axes(
        (box[0] / width, box[1] / height, box[2] / width, box[3] / height), zorder=1
    )
    dress(axes, theme, NARROW if narrow else WIDE)
    axes.grid(visible=False, axis="y")
    axes.set_yticks([])
    axes.set_ylim(rows - 0.6, -0.9 if narrow else -0.6)
    factor = 100 if scale.percent else 1
    low, high = (end * factor for end in find_ends(results))
    axes.set_xlim(low, high)
    for result in results:
        if result.arm == A_A and result.low is not None and result.high is not None:
            band = np.clip([result.low * factor, result.high * factor], low, high)
            axes.axvspan(*band, color=theme.band, linewidth=0, zorder=0)
    axes.axvline(0, color=theme.ink, linewidth=1, zorder=1)
    for row, result in enumerate(results):
        draw_interval(axes, theme, row, result, factor)
        if narrow:
            short = f"{texts[row].split('  ')[0]}  {short_verdict(result)}".rstrip()
            write(axes, theme, row, result, names[row], 0)
            write(axes, theme, row, result, short, 1)
            axes.axhline(row + 0.3, color=theme.grid, linewidth=0.7, zorder=0)
        else:
            write(axes, theme, row, result, names[row], 0, -10)
            write(axes, theme, row, result, texts[row], 1, 12, bold=False)
            write(axes, theme, row, result, short_verdict(result), 1, right - 62)
            if role_of(result) == "noise" and rows > 1:
                ends = (-left / 72 / box[2], 1 + (right - 10) / 72 / box[2])
                axes.axhline(row + 0.5, *ends, color=theme.grid, linewidth=1, clip_on=False)
    label_axes(axes, study, scale, narrow, box[2])
    return figure


def numbers_of(result: ArmResult, scale: Scale) -> str:
    """Return the effect and its interval, or why there is none."""
    if result.effect is None:
        return "no pair finished" if result.pairs else "no results yet"
    if result.low is None or result.high is None:
        return scale.difference(result.effect)
    interval = scale.interval(result.low, result.high).replace(" to ", ", ")
    return f"{scale.difference(result.effect)}  [{interval}]"


def short_verdict(result: ArmResult) -> str:
    """Return what stands at the end of an arm's line."""
    if role_of(result) == "noise":
        return "noise"
    return verdict_of(result) if result.pairs else ""


def find_ends(results: list[ArmResult]) -> tuple[float, float]:
    """Return the ends of the axis, zero between them; one far arm doesn't squeeze the rest."""
    ends = np.array(
        [
            end
            for result in results
            if result.effect is not None
            for end in (result.low, result.high, result.effect)
            if end is not None and np.isfinite(end)
        ]
        or [-1.0, 1.0]
    )
    most, usual = np.abs(ends).max(), np.quantile(np.abs(ends), 0.9)
    if most > 3 * usual > 0:
        ends = np.clip(ends, -1.3 * usual, 1.3 * usual)
    low, high = min(float(ends.min()), 0.0), max(float(ends.max()), 0.0)
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room


def draw_interval(axes: Any, theme: Theme, row: int, result: ArmResult, factor: float) -> None:
    """Draw a mark and its interval; what lies beyond the axis ends in an arrow."""
    if result.effect is None:
        return
    role = role_of(result)
    color = theme.roles[role]
    left, right = axes.get_xlim()
    effect = result.effect * factor
    low = effect if result.low is None else result.low * factor
    high = effect if result.high is None else result.high * factor
    axes.plot(np.clip([low, high], left, right), (row, row), color=color, linewidth=2, zorder=2)
    for beyond, edge, arrow in ((low < left, left, "<"), (high > right, right, ">")):
        if beyond:
            axes.plot(edge, row, arrow, color=color, markersize=7, zorder=3, clip_on=False)
    if left <= effect <= right:
        axes.plot(
            *(effect, row, MARKS[role]),
            color=color,
            markerfacecolor=color if is_filled(role) else theme.ground,
            markersize=7.5 if role != "noise" else 5.5,
            markeredgewidth=1.6,
            zorder=4,
        )


def write(
    axes: Any,
    theme: Theme,
    row: int,
    result: ArmResult,
    text: str,
    side: int,
    points: float | None = None,
    bold: bool = True,
) -> None:
    """Write beside an arm's line, so many points from the axes' left (0) or right (1) side.

    Without points the text stands within that side, above the line. What was told is bold.
    """
    told = is_filled(role_of(result))
    above = points is None
    axes.annotate(
        text,
        (side, row),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, 6) if above else (points, 0),
        textcoords="offset points",
        color=theme.ink if told or side == 0 else theme.quiet,
        weight="bold" if told and bold else "normal",
        fontsize=NARROW if above else WIDE,
        ha=("left", "right")[side] if above else ("right", "left")[side],
        va="bottom" if above else "center_baseline",
        annotation_clip=False,
        parse_math=False,
    )


def label_axes(axes: Any, study: Study, scale: Scale, narrow: bool, inches: float) -> None:
    """Say what the horizontal axis is and on which side better lies."""
    right, left = "\N{RIGHTWARDS ARROW}", "\N{LEFTWARDS ARROW}"
    lower, upper = ("worse", "better") if study.larger_is_better else ("better", "worse")
    unit = "" if not scale.percent else " (pp)" if narrow else " in percentage points"
    text = f"effect on {shorten(clean(study.outcome), 24 if narrow else 40)}{unit}"
    axes.set_xlabel(f"{left} {lower}     {text}     {upper} {right}", parse_math=False)
    # a tick for every 0.6 inches leaves room between their labels
    axes.locator_params(axis="x", nbins=max(3, int(inches / 0.6)))
