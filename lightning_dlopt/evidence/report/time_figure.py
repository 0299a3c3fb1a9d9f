"""The picture of the outcome against training time."""

from collections.abc import Callable
from statistics import mean, stdev
from typing import Any, NamedTuple

from lightning_dlopt.evidence.analysis import Analysis
from lightning_dlopt.evidence.report.averages import average, find_limits
from lightning_dlopt.evidence.report.numbers import choose_scale, clean
from lightning_dlopt.evidence.report.order import Role, compared, role_of
from lightning_dlopt.evidence.report.theme import (
    LINES,
    MARKS,
    POINTS,
    Theme,
    dress,
    is_filled,
    new_figure,
    say_nothing_yet,
    shorten,
)
from lightning_dlopt.evidence.runs import BASELINE, Study

#: More arms than that are told apart by verdict only, and the clearest are named.
TOGETHER = 4
#: How many arms are named, at most.
NAMED = 10


Box = tuple[float, float, float, float]


class Spot(NamedTuple):
    """Where an arm ended: means over its finished runs, and their standard deviations."""

    arm: str
    role: Role | None
    seconds: float
    outcome: float
    seconds_spread: float
    outcome_spread: float


def find_spots(study: Study, analysis: Analysis) -> list[Spot]:
    """Return where the baseline and every arm with a finished run ended."""
    roles: dict[str, Role | None] = {BASELINE: None}
    roles.update({result.arm: role_of(result) for result in compared(analysis)})
    spots = []
    for arm, role in roles.items():
        runs = study.reported(arm).values()
        pairs = [(r.seconds, v) for r in runs if (v := study.value(r)) is not None]
        if pairs:
            seconds, values = zip(*pairs, strict=True)
            spreads = (stdev(seconds), stdev(values)) if len(pairs) > 1 else (0.0, 0.0)
            spots.append(Spot(arm, role, mean(seconds), mean(values), *spreads))
    return spots


def draw_time(study: Study, analysis: Analysis, theme: Theme, narrow: bool = False) -> Any:
    """Return a figure with a point for each arm and the way its mean course took there."""
    size = 7.5 if narrow else 9
    figure = new_figure(theme, *((3.6, 3.6) if narrow else (9, 4.6)))
    spots = find_spots(study, analysis)
    if not spots:
        return say_nothing_yet(figure, theme, "no run has finished yet")
    axes = figure.subplots()
    dress(axes, theme, size)
    center = [spot.outcome for spot in spots if spot.role is None]
    ends = [s.outcome + d * s.outcome_spread for s in spots for d in (-1, 1)]
    low, high = find_limits(center, ends, reach=3)
    # room on the worse side, where the curves come from
    room = 0.5 * (high - low)
    limits = (low - room, high) if study.larger_is_better else (low, high + room)
    axes.set_ylim(limits)
    far = [spot for spot in spots if not limits[0] <= spot.outcome <= limits[1]]
    near = [spot for spot in spots if spot not in far]
    axes.set_xlim(0, 1.12 * max(spot.seconds + spot.seconds_spread for spot in near or spots))
    few = len(spots) <= TOGETHER + 1
    for index, spot in enumerate(spots):
        draw_spot(axes, study, theme, spot, index - 1 if few else None)
    scale = choose_scale(study, analysis)
    if scale.percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    name = shorten(clean(study.outcome), 30)
    if study.metric != study.outcome:
        name += f" (lines: {shorten(clean(study.metric), 30)})"
    axes.set_ylabel(name, parse_math=False)
    axes.set_xlabel("seconds of training")
    if not few:
        name_spots(figure, axes, near, theme, 4 if narrow else NAMED, size)
        add_key(axes, near, theme)
    add_legend(figure, axes, theme, size, narrow)
    if far:
        write_far(axes, far, theme, size, scale.value)
    return figure


def draw_spot(axes: Any, study: Study, theme: Theme, spot: Spot, series: int | None) -> None:
    """Draw an arm's point with both spreads, and its mean course; ``series`` gives it a color."""
    role: Role = spot.role or "noise"
    color, mark, line = theme.roles[role], MARKS[role], "-"
    if spot.role is None:
        color, mark = theme.ink, "*"
    elif series is not None:
        color, mark, line = theme.series[series], POINTS[series], LINES[series]
    filled = spot.role is None or series is not None or is_filled(role)
    course = average(list(study.reported(spot.arm).values()))
    if course is not None:
        strength = 0.9 if spot.role is None or series is not None else 0.25
        axes.plot(
            course.seconds, course.mean, line, color=color, linewidth=1, alpha=strength, zorder=1
        )
    axes.errorbar(
        *(spot.seconds, spot.outcome),
        xerr=spot.seconds_spread,
        yerr=spot.outcome_spread,
        fmt=mark,
        color=color,
        markerfacecolor=color if filled else theme.ground,
        markersize=13 if spot.role is None else 7,
        elinewidth=1.2,
        zorder=4 if spot.role is None else 3,
        label=shorten(clean(spot.arm), 30) if series is not None or spot.role is None else None,
    )


def add_key(axes: Any, spots: list[Spot], theme: Theme) -> None:
    """Name the marks of the verdicts that occur."""
    for role in ("helps", "hurts", "can't tell"):
        if any(spot.role == role for spot in spots):
            fill = theme.roles[role] if is_filled(role) else theme.ground
            axes.plot(
                *([], [], MARKS[role]), color=theme.roles[role], markerfacecolor=fill, label=role
            )


def add_legend(figure: Any, axes: Any, theme: Theme, size: float, narrow: bool) -> None:
    """Put the legend above the axes, the baseline first."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda index: labels[index] != BASELINE)
    legend = figure.legend(
        [handles[index] for index in order],
        [labels[index] for index in order],
        loc="outside upper left",
        ncols=2 if narrow else 5,
        frameon=False,
        fontsize=size,
        labelcolor=theme.ink,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def name_spots(
    figure: Any, axes: Any, spots: list[Spot], theme: Theme, most: int, size: float
) -> None:
    """Write the names of the clearest arms beside their points, where nothing is covered."""
    base = next((spot.outcome for spot in spots if spot.role is None), 0.0)
    told = [spot for spot in spots if spot.role in ("helps", "hurts")]
    told = sorted(told, key=lambda spot: -abs(spot.outcome - base))[:most]
    figure.draw_without_rendering()  # places the axes, so that points have pixels
    point = figure.dpi / 72
    pixels = [axes.transData.transform((spot.seconds, spot.outcome)) for spot in spots]
    taken = [(x - 6 * point, y - 6 * point, x + 6 * point, y + 6 * point) for x, y in pixels]
    frame = axes.get_window_extent()
    for spot in told:
        text = shorten(clean(spot.arm), 22)
        x, y = pixels[spots.index(spot)]
        wide, high = 0.62 * size * len(text) * point, 1.2 * size * point
        for side, (dx, dy) in {
            "left": (8, 0),
            "right": (-8, 0),
            "center": (0, 12),
            "center ": (0, -12),
        }.items():
            start = x + dx * point - {"left": 0, "right": wide}.get(side, wide / 2)
            middle = y + dy * point
            box = (start, middle - high / 2, start + wide, middle + high / 2)
            inside = frame.x0 <= box[0] and box[2] <= frame.x1
            if inside and not any(overlap(box, other) for other in taken):
                taken.append(box)
                axes.annotate(
                    text,
                    (spot.seconds, spot.outcome),
                    xytext=(dx, dy),
                    textcoords="offset points",
                    color=theme.ink,
                    fontsize=size - 1,
                    ha=side.strip(),
                    va="center",
                    parse_math=False,
                    zorder=5,
                )
                break


def overlap(one: Box, other: Box) -> bool:
    """Return whether two boxes (left, bottom, right, top) have a common part."""
    apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    return not apart


def write_far(
    axes: Any, far: list[Spot], theme: Theme, size: float, write: Callable[[float], str]
) -> None:
    """Say which arms lie off the axis, and where."""
    named = [f"{shorten(clean(spot.arm), 22)} ({write(spot.outcome)})" for spot in far[:3]]
    more = f" and {len(far) - 3} more" if len(far) > 3 else ""
    axes.text(
        *(0.02, 0.03, "off the axis: " + ", ".join(named) + more),
        transform=axes.transAxes,
        color=theme.quiet,
        fontsize=size - 1,
        parse_math=False,
        wrap=True,
    )
